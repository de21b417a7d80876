"""MaskGIT decoding: every token is decided once, in the asked order, seeing what was decided before."""

import pytest
import torch

from robosim.world_model.decoding import SamplingConfig, refine, reveal_counts, sample
from robosim.world_model.dynamics import Digits
from robosim.world_model.noise import row_uniform
from robosim.world_model.world import seeded_generators
from tests.world_model.conftest import make_world

LATENTS = torch.linspace(-1.4, 1.4, 2 * 5).view(2, 5)


class Recorder:
    """Stands for the dynamics: given logits [N, V] of every token, it keeps what each step saw and was asked."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
        self.seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def __call__(self, tokens, hidden, at):
        self.seen.append((tokens.clone(), hidden.clone(), at.clone()))
        return [self.logits[at]]

    def decode(self, sampling: SamplingConfig, rows: int = 3) -> torch.Tensor:
        count, codes = self.logits.shape
        noise = row_uniform(seeded_generators(range(rows)), (sampling.steps, count, 2))
        return refine(self, Digits((codes,)), noise, sampling)[0]


@pytest.mark.parametrize("tokens", [1, 4, 64, 256])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 25])
def test_every_step_reveals_and_all_together_reveal_everything(tokens, steps):
    counts = reveal_counts(tokens, steps)
    assert sum(counts) == tokens and min(counts) >= 1 and len(counts) == min(steps, tokens)


def test_few_are_revealed_first_and_many_last():
    assert reveal_counts(64, 4) == [5, 14, 21, 24]
    assert reveal_counts(64, 1) == [64]


@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize("steps", [1, 3, 25])
def test_every_token_is_decided_exactly_once_and_then_fed_back(order, steps):
    predict = Recorder(torch.randn(64, 50, generator=torch.Generator().manual_seed(0)))
    final = predict.decode(SamplingConfig(steps, 1.0, order))
    assert len(predict.seen) == steps
    decided = torch.zeros(3, 64, dtype=torch.long)
    for k, (tokens, hidden, _) in enumerate(predict.seen):
        after = predict.seen[k + 1][1] if k + 1 < steps else torch.zeros_like(hidden)
        assert not (after & ~hidden).any(), "what was revealed is never hidden again"
        decided += (hidden & ~after).long()
        assert torch.equal(tokens[~hidden], final[~hidden]), "a step sees the final tokens of those before it"
        assert not tokens[hidden].any(), "and nothing of the others"
    assert predict.seen[0][1].all() and (decided == 1).all()


def test_random_order_asks_only_for_what_it_reveals():
    predict = Recorder(torch.randn(64, 50))
    predict.decode(SamplingConfig(4))
    assert [at.shape[1] for *_, at in predict.seen] == reveal_counts(64, 4)
    asked = torch.cat([at for *_, at in predict.seen], 1)
    assert (asked.sort(1).values == torch.arange(64)).all()
    assert not torch.equal(asked[0], asked[1]), "each row has an order of its own"


def test_confidence_reveals_the_most_probable_first():
    # Token n is certain of code n to a degree that grows with n, so the last must come first.
    logits = torch.zeros(64, 70)
    logits[torch.arange(64), torch.arange(64)] = torch.linspace(1, 15, 64)
    predict = Recorder(logits)
    final = predict.decode(SamplingConfig(4, 0.0, "confidence"))
    assert torch.equal(final, torch.arange(64).expand(3, 64))
    hidden = [hidden for _, hidden, _ in predict.seen[1:]]
    for left, mask in zip((59, 45, 24), hidden, strict=True):
        assert mask[:, :left].all() and not mask[:, left:].any()


def test_without_temperature_the_order_is_all_that_noise_decides():
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    final = Recorder(logits).decode(SamplingConfig(25, 0.0))
    assert torch.equal(final, logits.argmax(-1).expand(3, 64))


def test_sampling_follows_the_probabilities():
    logits = torch.log(torch.tensor([0.1, 0.6, 0.3])).expand(20_000, 3)
    draw, probability = sample(logits, torch.rand(20_000, generator=torch.Generator().manual_seed(0)), 1.0)
    share = torch.bincount(draw, minlength=3) / len(draw)
    torch.testing.assert_close(share, torch.tensor([0.1, 0.6, 0.3]), atol=0.02, rtol=0)
    torch.testing.assert_close(probability, torch.tensor([0.1, 0.6, 0.3])[draw])
    assert (sample(logits, torch.rand(20_000), 0.0)[0] == 1).all()
    sharp = sample(logits, torch.rand(20_000, generator=torch.Generator().manual_seed(0)), 0.25)[0]
    assert (sharp == 1).float().mean() > 0.9


def test_what_is_impossible_is_never_drawn():
    logits = torch.full((1, 5), -torch.inf)
    logits[0, 2] = logits[0, 3] = 0.0
    uniform = torch.tensor([0.0, 0.3, 0.4999, 0.5, 0.999999])
    draw, _ = sample(logits.expand(5, 5), uniform, 1.0)
    assert draw.tolist() == [2, 2, 2, 3, 3]


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_a_tokens_expected_code_is_that_of_the_step_which_reveals_it(order):
    """Step k gives logits of its own, and its number as the expected code."""
    calls = []

    def predict(tokens, hidden, at):
        calls.append(hidden.clone())
        return [torch.randn(*at.shape, 50, generator=torch.Generator().manual_seed(len(calls)))]

    def expect(logits):
        return torch.full((*logits[0].shape[:2], 1), float(len(calls)))

    sampling = SamplingConfig(4, 0.0, order)
    noise = row_uniform(seeded_generators(range(3)), (4, 64, 2))
    tokens, codes = refine(predict, Digits((50,)), noise, sampling, expect)
    assert codes is not None and codes.shape == (3, 64, 1)
    for k, hidden in enumerate(calls):
        later = calls[k + 1] if k + 1 < len(calls) else torch.zeros_like(hidden)
        assert (codes[..., 0][hidden & ~later] == k + 1).all()
    calls.clear()
    without = refine(predict, Digits((50,)), noise, sampling)
    assert torch.equal(tokens, without[0]) and without[1] is None


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["codes", "digits"])
@pytest.mark.parametrize("temporal", [False, True])
def test_expected_codes_are_shown_and_drafted_from_while_the_past_keeps_tokens(temporal, prediction):
    world = make_world(temporal=temporal, prediction=prediction)
    video = torch.randint(0, 255, (3, 3, 16, 16, 3), dtype=torch.uint8)
    world.sampling = SamplingConfig(steps=1, temperature=0.0, expected=True)
    state, hard = world.start(video), world.start(video)
    latents = LATENTS[:1].expand(3, 5)
    world.step(state, latents)
    world.sampling = SamplingConfig(steps=1, temperature=0.0)
    world.step(hard, latents)
    assert torch.equal(state.tokens_BN, hard.tokens_BN)
    torch.testing.assert_close(state.cache.keys, hard.cache.keys)
    assert torch.equal(hard.codes_BNE, world.tokenizer.codes(hard.tokens_BN))
    assert (state.codes_BNE - hard.codes_BNE).abs().max() > 1e-3
    assert (state.frames - hard.frames).abs().max() > 1e-3
    assert (world.draft(state, latents) - world.draft(hard, latents)).abs().max() > 1e-3


@torch.no_grad()
def test_a_hidden_token_is_not_token_zero():
    world = make_world()
    tokens = torch.zeros(1, 4, dtype=torch.long)
    latent, has_past, draft = LATENTS[:1], torch.ones(1, dtype=torch.bool), torch.zeros(1, 4, 8)
    cache = world.dynamics.body.new_cache(1)
    none, every = torch.zeros(1, 4, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool)
    shown, hidden = (
        world.dynamics.step(tokens, mask, latent, draft, has_past, cache, commit=False)[0]
        for mask in (none, every)
    )
    other = world.dynamics.step(tokens + 7, every, latent, draft, has_past, cache, commit=False)[0]
    assert (shown - hidden).abs().max() > 0.1
    torch.testing.assert_close(other, hidden)


@torch.no_grad()
@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize("steps", [1, 25])
def test_64_tokens_are_decoded_in_any_number_of_steps_whatever_the_batch(order, steps):
    world = make_world(size=64)
    world.sampling = SamplingConfig(steps, 1.0, order)
    video = torch.randint(0, 255, (3, 1, 64, 64, 3), dtype=torch.uint8)
    latents = LATENTS[:1].expand(3, 5)
    state = world.start(video)
    world.step(state, latents)
    assert state.tokens_BN.shape == (3, 64) and state.tokens_BN.max() < 1200 and state.tokens_BN.min() >= 0
    alone = world.start(video[1:2], generators=seeded_generators([1]))
    world.step(alone, latents[:1])
    # A sum of floats in another order may flip a token that stood on the edge.
    assert (alone.tokens_BN == state.tokens_BN[1:2]).float().mean() > 0.9


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"temperature": -1.0}])
def test_impossible_sampling_is_refused(wrong):
    with pytest.raises(ValueError, match="sampling needs"):
        SamplingConfig(**wrong)
