"""`bench train`: its formula against PyTorch's counter, and what its figures say about each other."""

from __future__ import annotations

import json

import pytest
import torch

from robosim.bench import training
from robosim.bench.training import (
    TrainBenchConfig,
    bench_train,
    build,
    counted_flops,
    dynamics_flops,
    measure,
    random_batch,
    settings,
)
from robosim.errors import ConfigError
from robosim.training.ema import WeightAverage
from robosim.training.presets import load_preset

NANO = ["model=nano", "steps=1", "repeats=1", "device=cpu", "threads=1", "batch=2"]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("dynamics.model.draft=false", "dynamics.model.prediction=digits"),
        ("dynamics.model.prediction=digits",),
        ("dynamics.model.draft_prior=false",),
        ("dynamics.model.injection=prepend", "dynamics.model.transformer.feedforward=2"),
        ("dynamics.model.injection=modulate", "dynamics.model.transformer.temporal_every=1"),
    ],
)
def test_the_formula_counts_what_torch_counts(options):
    preset = load_preset("nano", options)
    model = build(preset, "dynamics")
    batch = random_batch(preset, model, 2, 6, seed=0)
    masked = int(model.training_mask(batch["noise_seed"], 6).sum())
    with torch.no_grad():
        counted = counted_flops(lambda: model(batch))
    assert masked > 0 and dynamics_flops(model, 2, 6, masked) == counted
    both = counted_flops(lambda: model(batch)[0].backward())
    assert both == pytest.approx(3 * counted, rel=0.01), (
        "the inputs' own gradients aren't wanted, that is all"
    )


@pytest.mark.parametrize("part", ["dynamics", "tokenizer", "latent_action"])
def test_figures_fit_together(part: str, capsys, tmp_path):
    out = tmp_path / "train.json"
    bench_train("bench train", [*NANO, f"part={part}", "clip_length=4", "peak_tflops=0.5", f"out={out}"])
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result == json.loads(out.read_text()) and result["threads"] == 1
    (row,) = result["results"]
    assert (row["part"], row["batch"], row["clip_length"], row["tokens_per_frame"]) == (part, 2, 4, 64)
    assert row["tokens_per_second"] == pytest.approx(2 * 4 * 64 / row["seconds_per_step"])
    assert row["mfu"] == pytest.approx(row["tflop_per_step"] / row["seconds_per_step"] / 0.5)
    assert row["tflop_per_step"] > 0 and row["peak_memory_gb"] > 0.05
    assert "mfu" in shown.err


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_is_the_benchmarks_own(two_threads, capsys):
    bench_train("bench train", [*NANO, "clip_length=4", "peak_tflops=1"])
    assert json.loads(capsys.readouterr().out)["threads"] == 1
    assert torch.get_num_threads() == 2


def test_a_batch_is_cut_as_the_preset_cuts_it():
    genie = load_preset("genie_2b5").dynamics.train
    assert genie.accumulate == settings(TrainBenchConfig(), genie).accumulate == 8
    assert settings(TrainBenchConfig(batch=16, accumulate=2), genie).accumulate == 2


def test_a_step_is_all_its_parts_and_the_averaged_weights(monkeypatch):
    """Of the last step the parts, and the steps after which the weights were averaged."""
    seen, averaged, order = [], [], []
    step = training.train_step
    monkeypatch.setattr(training, "train_step", lambda m, parts, *a: (seen.append(parts), step(m, parts, *a)))
    update = WeightAverage.update
    monkeypatch.setattr(WeightAverage, "update", lambda self, n: (averaged.append(n), update(self, n)))
    monkeypatch.setattr(training, "peak_memory", lambda device: order.append("memory") or 1.0)
    monkeypatch.setattr(training, "peak_rate", lambda *a: order.append("rate") or (1.0, "here"))
    config = TrainBenchConfig(model="nano", batch=4, clip_length=3, steps=2, repeats=1)
    preset = load_preset("nano", ("dynamics.train.accumulate=2", "dynamics.train.ema=0.9"))
    row = measure(config, preset, "cpu")
    assert [len(part["tokens"]) for part in seen[-1]] == [2, 2]
    assert not torch.equal(seen[-1][0]["tokens"], seen[-1][1]["tokens"])
    assert averaged == [0, 1, 2, 3] and order == ["memory", "rate"]
    assert (row["batch"], row["accumulate"], row["ema"]) == (4, 2, 0.9)
    assert row["frames_per_second"] == pytest.approx(4 * 3 / row["seconds_per_step"])


def test_a_measured_peak_is_above_what_training_reaches(capsys, monkeypatch):
    monkeypatch.setattr(training, "PEAK_SIZES", (256, 512))
    bench_train("bench train", [*NANO, "clip_length=4", "precision=float32"])
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert "float32" in row["peak_from"]
    assert 0 < row["mfu"] < 1


@pytest.mark.parametrize(
    "override", ["batch=0", "accumulate=5", "part=adapter", "model=huge", "peak_tflops=-1"]
)
def test_a_wrong_key_is_refused(override: str):
    with pytest.raises(ConfigError):
        bench_train("bench train", [*NANO[:2], override])
