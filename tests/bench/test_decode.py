"""`robosim bench decode`: the arithmetic of its figures, and that the paper's way really computes everything anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robosim.bench import decode
from robosim.bench.decode import DecodeConfig, bench_decode, fastest, measure_parts, row_of
from robosim.bench.paper import PAPER_STEPS, PaperRollout
from robosim.errors import ConfigError
from robosim.world_model.decoding import SamplingConfig
from tests.world_model.conftest import make_world


@pytest.fixture(params=[{}, {"temporal": True, "injection": "prepend"}, {"draft": False}], ids=str)
def world(request):
    return make_world(**request.param)


def clip(length: int, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames uint8 [rows, length, 16, 16, 3] and latent actions [rows, length, 5]."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (rows, length, 16, 16, 3), dtype=torch.uint8, generator=generator)
    return frames, torch.randn(rows, length, 5, generator=generator)


def test_the_papers_way_recomputes_every_frame_in_every_step(world, monkeypatch):
    """A frame of this toy has 4 tokens, so all is revealed after 4 of the 25 steps."""
    seen: list[tuple[int, ...]] = []
    forward, step = world.dynamics.body.forward, world.dynamics.body.step
    monkeypatch.setattr(
        world.dynamics.body, "forward", lambda x, c=None: (seen.append(tuple(x.shape)), forward(x, c))[1]
    )
    frames, latents = clip(4)
    rollout = PaperRollout(world, frames, latents)
    monkeypatch.setattr(world.dynamics.body, "step", lambda *a: pytest.fail("the cache was used"))
    assert seen == []
    for t in range(3):
        shown = rollout.step(latents[:, t])
        assert shown.shape == (2, 16, 16, 3) and rollout.tokens_BWN.shape == (2, 4, 4)
    locations = world.dynamics.body.locations
    assert seen == [(2, 4, locations, 16)] * (3 * 4), "whole windows of 4 frames, one a step"
    monkeypatch.setattr(world.dynamics.body, "step", step)
    world.step(rollout.state, latents[:, 0])
    assert len(seen) == 12, "the cached way never runs a window"


def test_a_frame_of_64_tokens_takes_the_paper_25_windows_and_us_k_plus_one_frames(monkeypatch):
    world = make_world(size=64)
    calls: list[str] = []
    body = world.dynamics.body
    for name in ("forward", "step"):
        method = getattr(body, name)
        monkeypatch.setattr(body, name, lambda *a, n=name, m=method: (calls.append(n), m(*a))[1])
    frames = torch.randint(0, 256, (1, 4, 64, 64, 3), dtype=torch.uint8)
    rollout = PaperRollout(world, frames, torch.randn(1, 4, 5))
    calls.clear()
    rollout.step(torch.randn(1, 5))
    assert calls == ["forward"] * PAPER_STEPS
    calls.clear()
    world.sampling = SamplingConfig(steps=8)
    world.step(rollout.state, torch.randn(1, 5))
    assert calls == ["step"] * 9


def test_within_one_window_both_ways_make_the_same_frame(world):
    """While nothing has left the window, the two are one function; without temperature their tokens agree."""
    world.sampling = SamplingConfig(PAPER_STEPS, 0.0)
    frames, latents = clip(3)
    state = world.start(frames, latents[:, :2])
    ours = world.step(state, latents[:, 2])
    rollout = PaperRollout(world, frames, latents)
    # Its window slides by one a step; with one more slot in front it still holds the whole history.
    for name in ("tokens_BWN", "actions_BWA", "drafts_BWNF"):
        value = getattr(rollout, name)
        if value is not None:
            setattr(rollout, name, torch.cat([value[:, :1], value], 1))
    assert torch.equal(rollout.step(latents[:, 2]), ours)


def test_a_row_of_the_table_divides_as_it_says():
    rates = {(4, 1): 12.0, (4, 4): 30.0, (4, 16): 28.0}
    row = row_of(4, (4, 1, 16), rates, {"frames_per_second": 0.25})
    assert row["frames_per_second"] == 12.0 and row["times_paper"] == 48.0
    assert (row["best_batch"], row["best_frames_per_second"]) == (4, 30.0)
    assert row["by_batch"] == {"4": 30.0, "1": 12.0, "16": 28.0}
    assert "times_paper" not in row_of(4, (1,), rates, None)


def test_the_fastest_repeat_counts_and_time_is_kept(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(decode.time, "perf_counter", lambda: now[0])
    costs = iter([9.0, *([2.0] * 4), *([1.0] * 4), *([3.0] * 4)])

    def work(t: int) -> None:
        now[0] += next(costs)

    assert fastest(work, DecodeConfig(frames=4, repeats=3, seconds=100)) == 1.0, (
        "the first call isn't counted"
    )
    costs = iter([9.0, *([2.0] * 100)])
    assert fastest(work, DecodeConfig(frames=50, repeats=3, seconds=5)) == 2.0
    assert len(list(costs)) == 97, "three frames fill five seconds"


def test_parts_are_timed_without_a_trace_of_each_other(world):
    parts = measure_parts(world, DecodeConfig(frames=2, repeats=1))
    named = {"dynamics", "commit", "pixels"} | ({"draft"} if world.dynamics.config.draft else set())
    assert set(parts) == named and all(value > 0 for value in parts.values())


def test_prints_json_and_writes_it(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decode, "load_preset", lambda name: Toy())
    bench_decode(
        "bench decode",
        [
            "model=nano",
            "steps=[1,3]",
            "batches=[1,2]",
            "frames=2",
            "repeats=1",
            "device=cpu",
            "out=made/decode.json",
        ],
    )
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result == json.loads(Path("made/decode.json").read_text())
    assert result["weights"].startswith("random") and result["threads"] >= 1 and result["machine"]["torch"]
    assert result["frame"] == {"size": 16, "tokens": 4} and result["window"] == 4
    assert result["parameters"]["dynamics"] == sum(p.numel() for p in make_world().dynamics.parameters())
    paper = result["paper"]
    assert (paper["steps"], paper["frames_per_pass"]) == (25, 4)
    for row, steps in zip(result["results"], (1, 3), strict=True):
        assert row["steps"] == steps and row["frames_per_second"] == row["by_batch"]["1"]
        assert row["best_frames_per_second"] == max(row["by_batch"].values())
        ratio = row["frames_per_second"] / paper["frames_per_second"]
        assert row["times_paper"] == pytest.approx(ratio, rel=0.01)
    assert "frames/s" in shown.err


class Toy:
    """Stands for a preset."""

    class dynamics:
        sampling = SamplingConfig()

    def build(self):
        world = make_world()
        return world.tokenizer, world.latent_action, world.dynamics


@pytest.mark.parametrize("override", ["frames=0", "steps=[0]", "batches=[]", "model=huge", "seconds=0"])
def test_a_wrong_key_is_refused(override: str):
    with pytest.raises(ConfigError):
        bench_decode("bench decode", [override, "device=cpu"])


def test_a_missing_run_is_named(tmp_path: Path):
    with pytest.raises(Exception, match="nowhere"):
        bench_decode("bench decode", [f"run={tmp_path / 'nowhere'}", "device=cpu"])
