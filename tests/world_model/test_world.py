"""Rollouts: exact against the uncached model, causal in the actions, independent of the batch, branchable."""

from itertools import pairwise

import pytest
import torch

from robosim.world_model.decoding import SamplingConfig, decode_frame, sample
from robosim.world_model.draft import draft_next
from robosim.world_model.dynamics import has_past_like, led_to
from robosim.world_model.evaluate import evaluate_dynamics
from robosim.world_model.world import seeded_generators
from tests.world_model.conftest import make_world

LATENTS = torch.linspace(-1.4, 1.4, 8 * 6 * 5).view(8, 6, 5)


@pytest.mark.parametrize("prediction", ["codes", "digits"])
@torch.no_grad()
def test_cached_logits_equal_the_uncached_forward_over_the_whole_history(video, prediction):
    world = make_world(prediction=prediction)
    latents = world.infer_latents(video)
    tokens, dynamics = world.encode_frames(video), world.dynamics
    padded = torch.cat([latents, torch.zeros(8, 1, 5)], 1)
    drafts = torch.zeros(*tokens.shape, dynamics.draft_features)
    for t in range(1, 7):
        decoded = world.tokenizer.decode(tokens[:, t - 1])
        drafts[:, t] = draft_next(
            world.tokenizer, world.latent_action, tokens[:, t - 1], decoded, latents[:, t - 1]
        )
    visible = torch.zeros_like(tokens, dtype=torch.bool)
    hidden = visible.clone()
    hidden[:, -1] = True
    x = dynamics.embed(tokens, hidden, led_to(padded), drafts, has_past_like(tokens))
    whole = dynamics.logits(dynamics.body(x)[:, -1])
    state = world.start(video[:, :-1])
    has_past = torch.ones(8, dtype=torch.bool)
    cached = dynamics.step(
        tokens[:, -1], hidden[:, -1], latents[:, -1], drafts[:, -1], has_past, state.cache, commit=False
    )
    for ours, full in zip(cached, whole, strict=True):
        assert (ours - full).abs().max() <= 1e-4 * full.abs().max()


def test_the_latent_action_changes_the_next_frame(world, video):
    still, moved = (world.rollout(video[:, :3], LATENTS * scale) for scale in (0.0, 1.0))
    assert (still.float() - moved.float()).abs().mean() > 1


def test_zeroed_action_injection_is_noticed(video):
    """Without the draft, the additive embedding is the only way in for the action."""
    world = make_world(draft=False)
    before = world.rollout(video[:, :3], LATENTS), world.rollout(video[:, :3], -LATENTS)
    assert not torch.equal(*before)
    for parameter in world.dynamics.embed_latent.parameters():
        parameter.zero_()
    after = world.rollout(video[:, :3], LATENTS), world.rollout(video[:, :3], -LATENTS)
    assert torch.equal(*after)


def test_delta_psnr_is_zero_exactly_where_latents_carry_nothing(video):
    world = make_world(draft=False)
    figures, predicted = evaluate_dynamics(world, video, context=2)
    assert predicted.shape == video[:, 2:].shape and figures["horizons"] == [1, 4]
    assert figures["delta_psnr_db"] != 0
    for parameter in world.dynamics.embed_latent.parameters():
        parameter.zero_()
    figures, _ = evaluate_dynamics(world, video, context=2)
    assert figures["delta_psnr_db"] == 0


def test_an_action_touches_no_frame_before_its_own(world, video):
    changed = LATENTS.clone()
    changed[:, 3] *= -1
    a, b = world.rollout(video[:, :3], LATENTS), world.rollout(video[:, :3], changed)
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.equal(a[:, 3], b[:, 3])


def test_batch_of_one_equals_batch_of_eight(world, video):
    together = world.rollout(video[:, :3], LATENTS)
    alone = [world.rollout(video[i : i + 1, :3], LATENTS[i : i + 1], seed=i) for i in range(8)]
    # A sum of floats in another order may flip a token that stood on the edge; noise of another row would flip most.
    assert (together == torch.cat(alone)).float().mean() > 0.9
    other = world.rollout(video[:1, :3], LATENTS[:1], seed=5)
    assert (together[:1] == other).float().mean() < 0.7


def test_a_branch_goes_on_like_the_original_and_leaves_it_alone(world, video):
    state = world.start(video[:2, :3])
    branch = state.copy()
    ahead = [world.step(branch, LATENTS[:2, t]) for t in range(4)]
    again = [world.step(state, LATENTS[:2, t]) for t in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(ahead, again, strict=True))


def test_rows_put_into_a_running_batch_are_as_if_alone(world, video):
    state = world.start(video[:3, :3])
    world.step(state, LATENTS[:3, 0])
    fresh = world.start(video[3:4, :2], generators=seeded_generators([7]))
    state.put_rows(torch.tensor([1]), fresh)
    expected = world.start(video[3:4, :2], generators=seeded_generators([7]))
    for t in range(3):
        frames = world.step(state, LATENTS[:3, t])
        assert torch.equal(frames[1:2], world.step(expected, LATENTS[1:2, t]))


def test_latents_between_context_frames_come_from_the_video(world, video):
    inferred = world.start(video[:2, :4])
    given = world.start(video[:2, :4], world.infer_latents(video[:2, :4]))
    other = world.start(video[:2, :4], torch.zeros(2, 3, 5))
    torch.testing.assert_close(inferred.cache.keys, given.cache.keys)
    assert not torch.allclose(inferred.cache.keys, other.cache.keys)


@torch.no_grad()
def test_revealed_tokens_are_fed_back_while_decoding(world, video, monkeypatch):
    """Each refinement step must see what the steps before it revealed, and keep it."""
    seen = []
    step = world.dynamics.step

    def spy(tokens, mask, *args, commit, **kwargs):
        seen.append((tokens.clone(), mask.clone(), commit))
        return step(tokens, mask, *args, commit=commit, **kwargs)

    monkeypatch.setattr(world.dynamics, "step", spy)
    state = world.start(video[:2, :1])
    seen.clear()
    world.sampling = SamplingConfig(steps=4)
    world.step(state, LATENTS[:2, 0])
    hidden = [mask.sum().item() for _, mask, _ in seen]
    assert hidden == sorted(hidden, reverse=True) and hidden[0] == mask_size(seen) and hidden[-1] == 0
    assert [commit for *_, commit in seen] == [False] * 4 + [True]
    for (before, mask, _), (after, _, _) in pairwise(seen[1:]):
        assert torch.equal(before[~mask], after[~mask])


def mask_size(seen) -> int:
    return seen[0][1].numel()


@torch.no_grad()
def test_decoding_commits_the_final_tokens(world, video):
    state = world.start(video[:2, :3])
    draft = world._draft(state, LATENTS[:2, 0])
    cache = state.cache.copy()
    tokens = decode_frame(
        world.dynamics, state.cache, LATENTS[:2, 0], draft, seeded_generators([0, 1]), world.sampling
    )
    visible = torch.zeros_like(tokens, dtype=torch.bool)
    has_past = torch.ones(2, dtype=torch.bool)
    world.dynamics.step(tokens, visible, LATENTS[:2, 0], draft, has_past, cache, commit=True)
    torch.testing.assert_close(cache.keys, state.cache.keys)


def test_sampling_follows_the_probabilities():
    logits = torch.log(torch.tensor([0.1, 0.6, 0.3])).expand(20_000, 3)
    draw, probability = sample(logits, torch.rand(20_000, generator=torch.Generator().manual_seed(0)), 1.0)
    share = torch.bincount(draw, minlength=3) / len(draw)
    torch.testing.assert_close(share, torch.tensor([0.1, 0.6, 0.3]), atol=0.02, rtol=0)
    torch.testing.assert_close(probability, torch.tensor([0.1, 0.6, 0.3])[draw])
    assert (sample(logits, torch.rand(20_000), 0.0)[0] == 1).all()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"temperature": -1.0}])
def test_impossible_sampling_is_refused(wrong):
    with pytest.raises(ValueError, match="sampling needs"):
        SamplingConfig(**wrong)
