"""The training loop: exact resume after a kill at the worst moment, noise that belongs to samples, honest failure."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from robosim.checkpoint import load_tensors
from robosim.training import snapshot
from robosim.training.loop import TrainConfig, TrainingError, train
from robosim.training.schedule import rate_factor
from robosim.world_model.noise import sample_uniform


class Regression(nn.Module):
    """Fits a fixed linear map, with dropout-like noise from the samples' seeds and a running statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 2))

    def forward(self, batch):
        keep = sample_uniform(batch["noise_seed"], (4,), salt=1) > 0.2
        loss = (self.net(batch["x"] * keep) - batch["x"] @ TARGET).square().mean()
        return loss, {"error": loss.detach().sqrt()}


TARGET = torch.arange(8.0).view(4, 2) / 8
CONFIG = TrainConfig(steps=20, batch=8, warmup=3, save_every=5, log_every=1, tensorboard=False)


def batches(step: int, rows: slice):
    generator = torch.Generator().manual_seed(step)
    batch = {"x": torch.randn(8, 4, generator=generator), "noise_seed": torch.arange(8) + 100 * step}
    return {name: value[rows] for name, value in batch.items()}


def fresh() -> Regression:
    torch.manual_seed(0)
    return Regression()


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture
def straight(tmp_path) -> dict[str, torch.Tensor]:
    module = fresh()
    train(module, batches, CONFIG, tmp_path / "straight", "fit")
    return weights(module)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns_and_logs_every_step(tmp_path):
    module = fresh()
    last = train(
        module, batches, replace(CONFIG, steps=300, learning_rate=1e-2, log_every=10), tmp_path, "fit"
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] > 2 * last["loss"]
    assert [row["step"] for row in rows] == [*range(0, 300, 10), 299]


def test_every_schedule_warms_up_and_ends_near_zero():
    for schedule in ("sqrt", "wsd", "cosine"):
        rates = [rate_factor(schedule, step, 100, 10, 0.2) for step in range(100)]
        assert rates[:10] == sorted(rates[:10]) and rates[0] < 0.2 * max(rates)
        assert rates[10:] == sorted(rates[10:], reverse=True)
        assert 0 < rates[-1] < 0.11 and 0.9 < max(rates) <= 1.005


def test_the_stable_schedule_is_stable_until_its_decay():
    rates = [rate_factor("wsd", step, 100, 10, 0.2) for step in range(100)]
    assert rates[9:81] == pytest.approx([1.0] * 72) and rates[90] == pytest.approx(0.5)


def test_the_loop_follows_the_schedule(tmp_path):
    train(fresh(), batches, replace(CONFIG, schedule="cosine", warmup=1), tmp_path, "fit")
    rates = [
        json.loads(line)["learning_rate"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert rates[0] == pytest.approx(1e-3) and rates[10] == pytest.approx(5e-4)


def test_averaged_weights_are_the_average_of_the_steps(tmp_path):
    """Ends with the moving average, made here once more from the weights after every step."""
    seen, module, plain = [], fresh(), fresh()
    train(plain, batches, CONFIG, tmp_path / "plain", "fit")
    expected = {name: p.detach().clone() for name, p in fresh().named_parameters()}

    def watched(step: int, rows: slice):
        seen.append({name: p.detach().clone() for name, p in module.named_parameters()})
        return batches(step, rows)

    train(module, watched, replace(CONFIG, ema=0.5), tmp_path / "averaged", "fit")
    for step, after in enumerate([*seen[1:], dict(plain.named_parameters())]):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * value + (1 - decay) * after[name] for name, value in expected.items()}
    for name, p in module.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name].detach())
    assert not same(weights(module), weights(plain))


def test_averaged_weights_survive_an_interrupt_to_the_bit(tmp_path):
    averaged = replace(CONFIG, ema=0.9)
    module = fresh()
    train(module, batches, averaged, tmp_path / "straight", "fit")
    stop_at(tmp_path / "stopped", 12, averaged)
    again = fresh()
    train(again, batches, averaged, tmp_path / "stopped", "fit")
    assert same(weights(again), weights(module))


def test_tensorboard_has_every_step_once_after_an_interrupt(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logged = replace(CONFIG, tensorboard=True)

    def killed(step: int, rows: slice):
        if step == 13:
            raise RuntimeError("power cut")
        return batches(step, rows)

    with pytest.raises(RuntimeError):
        train(fresh(), killed, logged, tmp_path, "fit")
    train(fresh(), batches, logged, tmp_path, "fit")
    reader = events.EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True)
    reader.Reload()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [event.step for event in reader.Scalars("loss")] == list(range(20))
    assert [e.value for e in reader.Scalars("loss")] == pytest.approx([row["loss"] for row in rows])
    assert {"learning_rate", "gradient_norm", "error"} <= set(reader.Tags()["scalars"])


@pytest.mark.parametrize("wrong", [{"accumulate": 0}, {"ema": 1.0}, {"decay": 0.0}, {"steps": -1}])
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import test_loop_script as t
for name, trap in t.TRAPS.items():
    child = os.fork()  # torch is imported once, and hasn't computed yet
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    t.torch.set_num_threads({threads})
    exec(trap)
    t.train(t.fresh(), t.batches, t.CONFIG, t.Path({folder!r}) / name, "fit")
    os._exit(0)
"""

AT_STEP = "inner = t.batches\nt.batches = lambda s, r: os.kill(os.getpid(), signal.SIGKILL) if s == 13 else inner(s, r)"

IN_RENAME = """
replace, count = os.replace, [0]
def trap(source, target):
    count[0] += str(source).endswith(".tmp") or str(source).endswith("manifest.json.partial")
    if count[0] == {nth}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = trap
"""


TRAPS = {
    "between steps": AT_STEP,
    "in the manifest's rename": IN_RENAME.format(nth=3),
    "in the snapshot's rename": IN_RENAME.format(nth=4),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A run for each of the traps, in a folder of its name: each in a process of its own, which died there."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "test_loop_script.py").write_text(Path(__file__).read_text())
    code = KILLED.format(folder=str(folder), threads=torch.get_num_threads())
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.split() == [str(-signal.SIGKILL)] * len(TRAPS), process.stderr
    return folder


@pytest.mark.parametrize("trap", TRAPS)
def test_kill_and_resume_equals_a_straight_run(killed, straight, trap):
    out = killed / trap
    before = len((out / "metrics.jsonl").read_text().splitlines())
    assert 0 < before < 20
    module = fresh()
    steps = train_watched(module, CONFIG, out)
    assert steps[0] in (5, 10) and steps[-1] == 19, "it went on from a snapshot"
    assert same(weights(module), straight)
    rows = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(20))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_step_saves_and_goes_on_exactly(tmp_path, straight, number):
    def interrupted(step: int, rows: slice):
        if step == 7:
            for _ in range(2):  # `uv run` hands on the terminal's Ctrl-C once more
                os.kill(os.getpid(), number)
        return batches(step, rows)

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), interrupted, CONFIG, tmp_path, "fit")
    assert [path.name for path in snapshot.snapshots(tmp_path)][-1] == "step_00000008"
    module = fresh()
    train(module, batches, CONFIG, tmp_path, "fit")
    assert same(weights(module), straight)


def test_a_damaged_snapshot_is_passed_over(tmp_path, straight):
    stop_at(tmp_path, 12)
    newest = snapshot.snapshots(tmp_path)[-1] / "rank_00000.safetensors"
    newest.write_bytes(newest.read_bytes()[:-20])
    module = fresh()
    train(module, batches, CONFIG, tmp_path, "fit")
    assert same(weights(module), straight)


@pytest.mark.parametrize(
    "other", [{"learning_rate": 2e-3}, {"steps": 21}, {"accumulate": 2}, {"ema": 0.5}, {"seed": 2}]
)
def test_a_snapshot_of_another_request_is_not_continued(tmp_path, other):
    stop_at(tmp_path, 12)
    identity = {"seed": other["seed"]} if "seed" in other else None
    changed = CONFIG if identity else replace(CONFIG, **other)
    assert train_watched(fresh(), changed, tmp_path, identity)[0] == 0


def test_what_changes_no_result_may_change_in_between(tmp_path, straight):
    stop_at(tmp_path, 12)
    module = fresh()
    changed = replace(CONFIG, save_every=3, log_every=7, tensorboard=True, recompute_every=1)
    assert train_watched(module, changed, tmp_path)[0] == 13
    assert same(weights(module), straight)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_that_is_done_costs_no_step_again(tmp_path, ema):
    config, module, again = replace(CONFIG, ema=ema, save_every=50, log_every=3), fresh(), fresh()
    last = train(module, batches, config, tmp_path, "fit")
    assert train(again, lambda step, rows: pytest.fail("a step"), config, tmp_path, "fit") == last
    assert same(weights(again), weights(module)) and not again.training
    rows = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [*range(0, 20, 3), 19]


def train_watched(
    module: nn.Module, config: TrainConfig, out: Path, identity: dict[str, int] | None = None
) -> list[int]:
    """Train; the steps that it took."""
    steps: list[int] = []

    def watched(step: int, rows: slice):
        steps.append(step)
        return batches(step, rows)

    train(module, watched, config, out, "fit", identity)
    return steps


def stop_at(out: Path, last: int, config: TrainConfig = CONFIG) -> None:
    def interrupted(step: int, rows: slice):
        if step == last:
            os.kill(os.getpid(), signal.SIGINT)
        return batches(step, rows)

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), interrupted, config, out, "fit")


def test_a_loss_that_is_not_finite_stops_before_the_optimiser(tmp_path):
    def poisoned(step: int, rows: slice):
        batch = batches(step, rows)
        if step == 12:
            batch["x"][0, 0] = float("nan")
        return batch

    module = fresh()
    with pytest.raises(TrainingError, match="step 12"):
        train(module, poisoned, CONFIG, tmp_path, "fit")
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert load_tensors(snapshot.snapshots(tmp_path)[-1] / "rank_00000.safetensors")


def test_only_the_last_snapshots_are_kept(tmp_path):
    train(fresh(), batches, replace(CONFIG, steps=40), tmp_path, "fit")
    assert len(snapshot.snapshots(tmp_path)) == snapshot.KEPT
    assert not list(tmp_path.glob("*.tmp"))
