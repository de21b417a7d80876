"""The banded transformer and its cache: exact, causal, independent of the batch."""

from typing import Any

import pytest
import torch

from robosim.world_model.st_transformer import STConfig, STTransformer

FRAMES, LOCATIONS = 13, 6
CASES = {
    "every block": {},
    "every second block": {"temporal_every": 2},
    "without qk norm": {"qk_norm": False},
    "modulated": {"modulated": True},
}


def make_transformer(modulated: bool = False, **changes) -> STTransformer:
    torch.manual_seed(0)
    given: dict[str, Any] = {"dim": 32, "heads": 2, "layers": 4, "window": 4} | changes
    config = STConfig(**given)
    model = STTransformer(config, LOCATIONS, modulated).eval()
    for name, parameter in model.named_parameters():  # larger than at the start, so that attention isn't flat
        if "norm" not in name or "modulation" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def transformer(request) -> STTransformer:
    return make_transformer(**request.param)


def clip(
    transformer: STTransformer, rows: int, frames: int = FRAMES
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Random input of the transformer [rows, frames, N, D], and its condition where it takes one."""
    condition = torch.randn(rows, frames, 32) if transformer.modulated else None
    return torch.randn(rows, frames, LOCATIONS, 32), condition


def at(value: torch.Tensor | None, *index) -> torch.Tensor | None:
    return None if value is None else value[index]


@torch.no_grad()
def test_cache_equals_banded_forward_over_the_whole_history(transformer):
    x, condition = clip(transformer, 2)
    whole = transformer(x, condition)
    cache = transformer.new_cache(2)
    for t in range(FRAMES):
        now = at(condition, slice(None), t)
        other = transformer.step(torch.randn_like(x[:, t]), cache, False, now)
        refined = transformer.step(x[:, t], cache, False, now)  # a refinement pass must leave no trace
        stepped = transformer.step(x[:, t], cache, True, now)
        torch.testing.assert_close(refined, stepped)
        assert not torch.allclose(other, stepped)
        assert (stepped - whole[:, t]).abs().max() <= 1e-4 * whole.abs().max()


@torch.no_grad()
def test_after_a_thousand_frames_the_cache_is_exact_and_no_larger():
    transformer = make_transformer(layers=2)
    x, _ = clip(transformer, 1, 1000)
    cache = transformer.new_cache(1)
    sizes = cache.keys.numel(), cache.values.numel(), cache.keys.untyped_storage().nbytes()
    for t in range(1000):
        stepped = transformer.step(x[:, t], cache, commit=True)
    assert sizes == (cache.keys.numel(), cache.values.numel(), cache.keys.untyped_storage().nbytes())
    reach = 1 + 2 * (transformer.config.window - 1)
    # What lies before the reach of both layers changes nothing, but it moves the positions on: a forward over all
    # thousand frames and one over the last few must both agree with the cache.
    for history in (x, x[:, -reach:]):
        last = transformer(history)[:, -1]
        assert (stepped - last).abs().max() <= 1e-4 * last.abs().max()


@torch.no_grad()
def test_the_cache_is_not_a_re_encoding_of_the_last_window(transformer):
    x, condition = clip(transformer, 1)
    whole = transformer(x, condition)[:, -1]
    window = transformer(x[:, -4:], at(condition, slice(None), slice(-4, None)))[:, -1]
    assert (whole - window).abs().max() > 1e-2 * whole.abs().max()


@torch.no_grad()
def test_short_clips_take_the_causal_path_and_agree_with_the_band(transformer):
    x, condition = clip(transformer, 2)
    banded = transformer(x, condition)[:, :4]
    causal = transformer(x[:, :4], at(condition, slice(None), slice(4)))
    torch.testing.assert_close(causal, banded, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_future_frames_do_not_leak_into_the_past(transformer):
    x, condition = clip(transformer, 1)
    changed = x.clone()
    changed[:, 7:] = torch.randn_like(changed[:, 7:])
    before, after = transformer(x, condition), transformer(changed, condition)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 0.1


@torch.no_grad()
def test_frames_older_than_all_layers_together_reach_are_forgotten(transformer):
    transformer.double()
    reach = 3 * transformer.temporal_layers
    x, condition = clip(transformer, 1, reach + 2)
    x, condition = x.double(), None if condition is None else condition.double()
    changed = x.clone()
    changed[:, 0] = torch.randn_like(changed[:, 0])
    before, after = transformer(x, condition), transformer(changed, condition)
    torch.testing.assert_close(before[:, -1], after[:, -1])
    assert (before[:, reach] - after[:, reach]).abs().max() > 1e-12


@torch.no_grad()
def test_rows_may_start_at_different_times(transformer):
    x, condition = clip(transformer, 2)
    cache = transformer.new_cache(2)
    for t in range(5):
        transformer.step(x[:, t], cache, True, at(condition, slice(None), t))
    cache.put_rows(torch.tensor([1]), transformer.new_cache(1))
    assert cache.position.tolist() == [5, 0]
    fresh = transformer(x[1:, 5:], at(condition, slice(1, None), slice(5, None)))
    old = transformer(x[:1], at(condition, slice(1)))
    for t in range(5, FRAMES):
        out = transformer.step(x[:, t], cache, True, at(condition, slice(None), t))
        torch.testing.assert_close(out[0], old[0, t], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(out[1], fresh[0, t - 5], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_branch_and_single_rows_go_on_by_themselves(transformer):
    x, condition = clip(transformer, 2)
    whole = transformer(x, condition)
    cache = transformer.new_cache(2)
    for t in range(6):
        transformer.step(x[:, t], cache, True, at(condition, slice(None), t))
    branch, alone = cache.copy(), cache.take_rows(torch.tensor([1]))
    for _ in range(5):  # the branch goes elsewhere, and round the whole ring
        now = at(condition, slice(None), 0)
        transformer.step(torch.randn(2, LOCATIONS, 32), branch, True, now)
    for t in range(6, FRAMES):
        out = transformer.step(x[:, t], cache, True, at(condition, slice(None), t))
        one = transformer.step(x[1:, t], alone, True, at(condition, slice(1, None), t))
        torch.testing.assert_close(out, whole[:, t], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one, whole[1:, t], rtol=1e-4, atol=1e-4)


def test_modulation_starts_as_the_plain_transformer():
    torch.manual_seed(0)
    config = STConfig(dim=32, heads=2, layers=2, window=4)
    model, plain = STTransformer(config, LOCATIONS, modulated=True), STTransformer(config, LOCATIONS)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "modulation" not in k})
    x, condition = clip(model, 2)
    torch.testing.assert_close(model(x, condition), plain(x))
    model(x, condition).square().sum().backward()
    gradients = [p.grad for name, p in model.named_parameters() if "modulation" in name]
    assert gradients and all(g is not None and g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize("modulated", [False, True])
def test_recomputed_blocks_give_the_same_gradients(modulated, monkeypatch):
    model = make_transformer(modulated).train()
    x, condition = clip(model, 2)
    calls = []
    forward = type(model.stack[0]).forward
    monkeypatch.setattr(
        type(model.stack[0]), "forward", lambda self, *a: (calls.append(1), forward(self, *a))[1]
    )
    gradients = []
    for every in (0, 2):
        model.recompute_every = every
        model.zero_grad()
        model(x, condition).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert len(calls) == 4 + 4 + 2, "two of four blocks run a second time"
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


@torch.no_grad()
def test_bfloat16_stays_near_float32_with_weights_or_autocast(transformer):
    x, condition = clip(transformer, 1)
    whole = transformer(x, condition)

    def play(x, condition):
        cache = transformer.new_cache(1)
        frames = [
            transformer.step(x[:, t], cache, True, at(condition, slice(None), t)) for t in range(FRAMES)
        ]
        assert cache.keys.dtype == cache.values.dtype == torch.bfloat16
        return torch.stack(frames, 1).float()

    def error(found):
        return ((found - whole).square().mean() / whole.square().mean()).sqrt()

    with torch.autocast("cpu", torch.bfloat16):
        assert 0 < error(transformer(x, condition).float()) < 0.05
        assert 0 < error(play(x, condition)) < 0.05
    transformer.bfloat16()
    assert 0 < error(play(x.bfloat16(), None if condition is None else condition.bfloat16())) < 0.1


def test_a_large_transformer_builds_without_memory():
    with torch.device("meta"):
        model = STTransformer(STConfig(dim=2560, heads=20, layers=34, window=16), 256, modulated=True)
    parameters = list(model.parameters())
    assert all(p.is_meta for p in parameters) and sum(p.numel() for p in parameters) > 2e9


def test_heads_of_an_odd_width_are_refused():
    with pytest.raises(ValueError, match="heads"):
        STTransformer(STConfig(dim=30, heads=2), LOCATIONS)
