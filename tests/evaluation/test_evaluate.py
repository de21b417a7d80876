"""`robosim evaluate` from end to end, on a run of toy size."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robosim_datasets import clip_files

from robosim import shipped
from robosim.config import compose
from robosim.errors import CheckpointError, ConfigError, DatasetError
from robosim.evaluation import evaluate as module
from robosim.evaluation.evaluate import EvaluateConfig, check_fit, evaluate, evaluate_command, held_out_store
from robosim.evaluation.evaluation_words import METRICS, SCALARS, at, columns, shown
from robosim.simulator import load
from tests.toy_run import toy_run

FEW = ("device=cpu", "horizons=[1,4]", "long=6", "clips=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return toy_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory) -> Path:
    """The same without its video, and without its adapter."""
    simulator = load(run, device="cpu")
    simulator.bundle = None
    return simulator.save(tmp_path_factory.mktemp("saved") / "toy")


@pytest.fixture(scope="module")
def made(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("figures")
    evaluate_command("evaluate", [f"run={run}", f"out={out}", *FEW])
    return out


def test_figures_page_and_strips_are_there(made):
    figures = json.loads((made / "evaluation.json").read_text())
    assert figures["horizons"] == [1, 4] and figures["long"] == 6 and columns(figures) == [1, 4, 6]
    assert figures["stretches"]["reach"]["stretches"] == 2
    curves = {"latent", "command", "ceiling", "repeat_last_raw", "repeat_last", "nearest"}
    for tree in (figures["pooled"], figures["tasks"]["reach"]):
        for metric in ("psnr_db", "moving_psnr_db", "ssim", "moving_ssim"):
            assert set(tree[metric]) == curves
            for values in tree[metric].values():
                assert set(values) == {"1", "4", "6"}
                for value in values.values():
                    assert value["low"] <= value["value"] <= value["high"] and value["episodes"] == 2
        for place in ("delta_psnr_db", "shuffle_ratio", "one_step_moving_psnr_db.shuffled"):
            assert at(tree, place)["episodes"] == 2
        assert tree["tool_drift_m"]["command"]["4"]["value"] > 0
        assert at(tree, "usable_horizon.command")["value"] >= 0
    assert (made / "strips" / "reach.png").read_bytes().startswith(b"\x89PNG")
    assert not (made / "masks").exists(), "reach has no object"
    assert any(line.startswith("LPIPS is left out") for line in figures["missing"])


def test_the_page_has_a_table_and_a_figure_for_each_metric_and_fetches_nothing(made):
    page = (made / "evaluation.html").read_text()
    figures = json.loads((made / "evaluation.json").read_text())
    for metric in METRICS:
        values = figures["pooled"].get(metric.name, {})
        if any(value for by_horizon in values.values() for value in by_horizon.values()):
            section = page.split(f"<h2>{metric.title}</h2>")[1].split("<h2>")[0]
            assert section.count("<svg") == 1 and "<table>" in section, metric.name
    figure = figures["pooled"]["moving_psnr_db"]["command"]["4"]
    assert shown(figure, 1, 1) in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "") and "<script" not in page
    assert page.count("data:image/png;base64,") == 1


def test_the_command_prints_one_table_and_what_it_made(run, tmp_path, capsys):
    evaluate_command(
        "evaluate", [f"run={run}", f"out={tmp_path}", *FEW, "horizons=[1,30]", "long=0", "context=2"]
    )
    shown = capsys.readouterr().out
    assert "2 held-out stretches of reach" in shown and "command-driven" in shown
    assert "reach: no figures 30 frames ahead: the longest held-out stretch has" in shown
    assert f"made {tmp_path}: evaluation.json, evaluation.html, strips/ to look at" in shown
    assert "Object drift" not in shown, "nothing to show of it"
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    assert figures["pooled"]["psnr_db"]["latent"]["30"] is None


def test_a_saved_simulator_is_measured_on_what_its_data_hold_out(run, saved, tmp_path):
    figures = evaluate(config(saved, f"data={run}"), saved, tmp_path)
    assert figures["stretches"]["reach"]["stretches"] == 2, "the two training episodes may have taught it"
    assert set(figures["pooled"]["psnr_db"]) == {"latent", "ceiling", "repeat_last_raw", "repeat_last"}
    text = "\n".join(figures["missing"])
    for words in ("no adapter/", "probe", "no training clips"):
        assert words in text
    assert not any(at(figures["pooled"], place) for place, *_ in SCALARS if "usable" in place)


def test_made_again_it_gives_the_same_figures_and_no_picture_of_before_stays(run, made, tmp_path):
    stale = tmp_path / "masks" / "reach.png"
    stale.parent.mkdir()
    stale.write_bytes((made / "strips" / "reach.png").read_bytes())
    again = evaluate(config(run), run, tmp_path)
    assert again["pooled"] == json.loads((made / "evaluation.json").read_text())["pooled"]
    assert not stale.exists() and (tmp_path / "strips" / "reach.png").is_file()


def config(run: Path, *overrides: str) -> EvaluateConfig:
    return compose("evaluate", EvaluateConfig, [f"run={run}", *FEW, *overrides])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["run="], "run is empty"),
        (["clips=0"], "clips and context must be 1 or more"),
        (["context=0"], "clips and context must be 1 or more"),
        (["long=-1"], "long 0 or more"),
        (["horizons=[]"], "horizons must be frames from 1 on"),
        (["horizons=[0,4]"], r"not \[0, 4\]"),
        (["tasks=[]"], "tasks is empty"),
        (["horizon=[1]"], "did you mean 'horizons'"),
        (["temperature=-1"], "temperature must be 0"),
        (["tasks=[raech]"], "'raech'.*reach"),
    ],
)
def test_what_makes_no_sense_names_its_key_and_makes_nothing(run, tmp_path, overrides, words):
    out = tmp_path / "figures"
    with pytest.raises(ConfigError, match=words):
        evaluate_command("evaluate", [f"run={run}", f"out={out}", "device=cpu", *overrides])
    assert not list(tmp_path.rglob("*.json"))


def test_horizons_and_tasks_are_taken_once():
    chosen = EvaluateConfig(run="x", horizons=(8, 1, 8), long=100, tasks=("b", "a", "b"))
    assert chosen.horizons == (1, 8) and chosen.measured == (1, 8, 100) and chosen.tasks == ("b", "a")
    assert EvaluateConfig(run="x", horizons=(8,), long=0).measured == (8,)


def test_a_shipped_simulator_needs_a_folder_for_its_figures(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    shutil.copytree(saved, tmp_path / "toy")
    (tmp_path / "toy" / shipped.CARD).write_text("{}")
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ConfigError, match="out=FOLDER"):
        evaluate_command("evaluate", ["run=toy"])


def test_a_saved_simulator_needs_data(saved, tmp_path):
    with pytest.raises(CheckpointError, match="data=runs/NAME"):
        evaluate(config(saved), saved, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_data_that_taught_the_run_are_not_held_out(run, tmp_path):
    shutil.copytree(run / "clips", tmp_path / "same" / "clips")
    with pytest.raises(DatasetError, match="was trained on"):
        held_out_store(config(run, f"data={tmp_path / 'same'}"), load(run, device="cpu"), run)


def test_other_data_are_taken_whole(run, tmp_path):
    shutil.copytree(run / "clips", tmp_path / "other" / "clips")
    clips = tmp_path / "other" / "clips"
    clip_files.write_index(clips, clip_files.read_index(clips) | {"source": "another's"})
    store, split = held_out_store(config(run, f"data={tmp_path / 'other'}"), load(run, device="cpu"), run)
    assert split is None and store.source == "another's"


def test_data_that_do_not_fit_say_what_differs(env_spec):
    check_fit(env_spec, env_spec, "same")
    for other, words in (
        (replace(env_spec, size=64), "frame size is 64, the simulator's 32"),
        (replace(env_spec, cameras=("wrist",)), "camera is wrist"),
        (replace(env_spec, fps=30), "frames a second is 30"),
        (replace(env_spec, robot=replace(env_spec.robot, name="other")), "arm is"),
    ):
        with pytest.raises(DatasetError, match=words):
            check_fit(env_spec, other, "other")


def test_the_object_of_a_task_gets_masks_and_pictures(run, tmp_path, monkeypatch):
    """The colours are found elsewhere; here they come through to figures, picture and page."""
    from robosim.evaluation import measuring
    from tests.evaluation.test_masks import COLOURS

    monkeypatch.setattr(measuring, "colours_by_task", lambda stretches, shows, missing: {"reach": COLOURS})
    monkeypatch.setattr(module, "print_table", lambda figures: None)
    figures = evaluate(config(run), run, tmp_path)
    for name in ("object_iou", "object_area_ratio", "object_area_error"):
        assert set(figures["pooled"][name]) == {"latent", "command", "ceiling", "repeat_last", "nearest"}
    assert (tmp_path / "masks" / "reach.png").is_file()
    assert (tmp_path / "evaluation.html").read_text().count("data:image/png;base64,") == 2


def test_what_the_simulator_shows_is_what_is_compared(run, tmp_path, monkeypatch):
    """Rollouts that show the true frames get the tokenizer's ceiling, and better."""
    from robosim.evaluation import measuring

    def truth(stretches):
        return stretches.frames[:, stretches.context :].clone()

    kept = []
    measure = module.measure

    def watched(simulator, folder, stretches, *rest):
        kept.append(stretches)
        return measure(simulator, folder, stretches, *rest)

    monkeypatch.setattr(module, "measure", watched)
    monkeypatch.setattr(measuring, "reconstruct", lambda world, stretches: stretches.frames.clone())
    monkeypatch.setattr(
        measuring, "drive_by_commands", lambda world, spec, bundle, stretches, *rest: truth(stretches)
    )
    figures = evaluate(config(run), run, tmp_path)["pooled"]
    for curve in ("command", "ceiling"):
        values = [value["value"] for value in figures["moving_psnr_db"][curve].values()]
        assert values == pytest.approx([100, 100, 100])
    assert all(value["value"] < 50 for value in figures["moving_psnr_db"]["latent"].values())
    assert figures["moving_psnr_gain_db"]["command_ceiling"]["4"]["value"] == 0
    raw, coded = (figures["psnr_db"][name]["4"]["value"] for name in ("repeat_last_raw", "repeat_last"))
    assert raw == pytest.approx(coded), "the tokenizer that changes nothing"
    assert np.isfinite(kept[0].positions).all()
