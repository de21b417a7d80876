"""The banded transformer and its cache: exact, causal, independent of the batch."""

import pytest
import torch

from robosim.world_model.st_transformer import STConfig, STTransformer

CONFIG = STConfig(dim=32, heads=2, layers=3, window=4)
FRAMES, LOCATIONS = 13, 6


@pytest.fixture(params=[1, 2], ids=["temporal_every=1", "temporal_every=2"])
def transformer(request) -> STTransformer:
    torch.manual_seed(0)
    config = STConfig(dim=32, heads=2, layers=4, window=4, temporal_every=request.param)
    model = STTransformer(config, LOCATIONS).eval()
    for parameter in model.parameters():  # larger than at the start, so that attention isn't flat
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def test_cache_equals_banded_forward_over_the_whole_history(transformer):
    x = torch.randn(2, FRAMES, LOCATIONS, 32)
    whole = transformer(x)
    cache = transformer.new_cache(2)
    for t in range(FRAMES):
        refined = transformer.step(x[:, t], cache, commit=False)  # a refinement pass must leave no trace
        stepped = transformer.step(x[:, t], cache, commit=True)
        torch.testing.assert_close(refined, stepped)
        assert (stepped - whole[:, t]).abs().max() <= 1e-4 * whole.abs().max()


@torch.no_grad()
def test_the_cache_is_not_a_re_encoding_of_the_last_window(transformer):
    x = torch.randn(1, FRAMES, LOCATIONS, 32)
    whole, window = transformer(x)[:, -1], transformer(x[:, -4:])[:, -1]
    assert (whole - window).abs().max() > 1e-2 * whole.abs().max()


@torch.no_grad()
def test_future_frames_do_not_leak_into_the_past(transformer):
    x = torch.randn(1, FRAMES, LOCATIONS, 32)
    changed = x.clone()
    changed[:, 7:] = torch.randn_like(changed[:, 7:])
    before, after = transformer(x), transformer(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 0.1


@torch.no_grad()
def test_frames_older_than_all_layers_together_reach_are_forgotten(transformer):
    transformer.double()
    reach = 3 * sum(block.temporal for block in transformer.blocks)
    x = torch.randn(1, reach + 2, LOCATIONS, 32, dtype=torch.float64)
    changed = x.clone()
    changed[:, 0] = torch.randn_like(changed[:, 0])
    torch.testing.assert_close(transformer(x)[:, -1], transformer(changed)[:, -1])
    assert (transformer(x)[:, reach] - transformer(changed)[:, reach]).abs().max() > 1e-12


@torch.no_grad()
def test_rows_may_start_at_different_times(transformer):
    x = torch.randn(2, FRAMES, LOCATIONS, 32)
    cache = transformer.new_cache(2)
    for t in range(5):
        transformer.step(x[:, t], cache, commit=True)
    cache.put_rows(torch.tensor([1]), transformer.new_cache(1))
    fresh = transformer(x[1:, 5:])
    old = transformer(x[:1])
    for t in range(5, FRAMES):
        out = transformer.step(x[:, t], cache, commit=True)
        torch.testing.assert_close(out[0], old[0, t], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(out[1], fresh[0, t - 5], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_memory_of_the_cache_is_flat(transformer):
    cache = transformer.new_cache(1)
    for _ in range(20):
        transformer.step(torch.randn(1, LOCATIONS, 32), cache, commit=True)
    assert cache.keys.shape[-2] == transformer.config.window - 1


def test_heads_of_an_odd_width_are_refused():
    with pytest.raises(ValueError, match="heads"):
        STTransformer(STConfig(dim=30, heads=2), LOCATIONS)
