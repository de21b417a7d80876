import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from robosim.errors import CheckpointError
from robosim.evaluation.charts import ticks
from robosim.evaluation.pictures import error_frames, strip
from robosim.evaluation.report import write_report
from robosim.evaluation.sections import origin, taught
from robosim.evaluation.summary import STAGES, build_summary, missing_fields, write_summary
from robosim.evaluation.verdict import checks, headline

HORIZONS = ("1", "4", "8", "16")
STAGE_NAMES = ("collect", "tokenizer", "latent_action", "dynamics", "adapt", "pretrain", "compare", "report")
SUCCESS = ("success_learned", "success_physics", "success_random_physics")
POLICY = (*SUCCESS, "final_distance_physics_m", "final_distance_random_m", "episodes")
REQUIRED = {
    "wall_seconds": STAGE_NAMES,
    "video": ("episodes", "frames"),
    "tokenizer": ("psnr_db", "moving_psnr_db", "codes_used"),
    "latent_action": ("psnr_db", "shuffled_psnr_db"),
    "dynamics": ("delta_psnr_db", "frames_per_second"),
    "dynamics.moving_psnr_db": HORIZONS,
    "dynamics.repeat_last_moving_psnr_db": HORIZONS,
    "dynamics.psnr_db": HORIZONS,
    "adapter": ("labels", "episodes", "command_mae_rad", "tool_mae_m", "probe_error_m"),
    "adapter.rollout_moving_psnr_db": HORIZONS,
    "policy.reach": POLICY,
    "policy.soft_push": POLICY,
}


class Links(HTMLParser):
    """Every address that a browser would follow, and the tags that are open."""

    def __init__(self):
        super().__init__()
        self.addresses, self.open, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br", "link", "line", "circle", "rect", "polyline", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "circle", "rect", "polyline", "polygon"):
            assert self.open.pop() == tag


def test_the_summary_fills_every_field(finished_run):
    write_summary(finished_run, report_seconds=4.5)
    summary = json.loads((finished_run / "summary.json").read_text())
    for section, names in REQUIRED.items():
        values = summary
        for key in section.split("."):
            values = values[key]
        for name in names:
            entries = values[name].values() if isinstance(values[name], dict) else [values[name]]
            assert all(isinstance(v, int | float) and math.isfinite(v) for v in entries), (section, name)
    assert missing_fields(summary) == []
    assert summary["seed"] == 7 and summary["wall_seconds"]["report"] == 4.5
    assert summary["wall_seconds"]["total"] == pytest.approx(20.5 * 28 + 4.5)
    assert "table" not in summary["policy"]["reach"]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), {}, "12"])
def test_an_empty_figure_is_noticed(finished_run, value):
    summary = build_summary(finished_run, 1.0)
    summary["dynamics"]["moving_psnr_db"]["8"] = value
    summary["policy"]["reach"]["success_learned"] = value
    assert missing_fields(summary) == ["dynamics.moving_psnr_db.8", "policy.reach.success_learned"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_stage_is_named(finished_run, stage):
    (finished_run / STAGES[stage] / "stage.json").unlink()
    with pytest.raises(CheckpointError, match=f"no finished stage '{stage}'"):
        write_report(finished_run)
    assert not (finished_run / "report.html").exists()


def test_the_report_is_one_well_formed_file_without_scripts(finished_run):
    path = write_report(finished_run, command="robosim demo seed=7 & <b>", report_seconds=3.0)
    text = path.read_text()
    page = Links()
    page.feed(text)
    assert page.open == [] and "script" not in page.tags and "link" not in page.tags
    assert page.addresses and all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "robosim demo seed=7 &amp; &lt;b&gt;" in text
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text).lower())
    assert len(text) < 3_000_000


def test_the_report_shows_the_figures(finished_run):
    text = write_report(finished_run, report_seconds=3.0).read_text()
    summary = build_summary(finished_run)
    for wanted in ("15.2 dB", "4,321 frames", "196 labelled transitions", "987", "dot-nano-s0", "tokenizer"):
        assert wanted in text
    for task, figures in summary["policy"].items():
        assert f"{task}, {figures['episodes']} starts" in text
        assert f"learned {figures['success_learned']:.0%}" in text
    assert text.count("<details>") == 2 and text.count("<svg") >= 12


def test_it_says_whose_maps_drive_the_arm():
    assert taught({"labels": 196}) == "after 196 labelled transitions"
    text = taught({"labels": 196, "maps_from": "tiny"})
    assert "the adapter of tiny" in text and "a probe of 196 labelled transitions" in text


def test_the_verdict_follows_the_figures(finished_run):
    summary = build_summary(finished_run)
    good = headline(summary)
    assert (
        "It has learned how pictures change" in good[0]
        and "for 16 frames (1.6 s), as far as was checked; the tool is then 3 cm off" in good[1]
    )
    summary["latent_action"]["shuffled_psnr_db"] = summary["latent_action"]["psnr_db"]
    summary["replay"]["other_motions_moving_psnr_db"] = summary["replay"]["moving_psnr_db"]
    for figures in summary["policy"].values():
        figures |= {
            "success_random_physics_interval": figures["success_physics_interval"],
            "distance_p_value": 0.5,
            "bias": 0.4,
        }
    bad = headline(summary)
    assert "isn't there yet" in bad[0] and "strays from what the camera saw at once" in bad[1]
    assert "no better in physics than random" in bad[2]
    assert "Don't read success inside it as success in physics on reach and soft_push" in bad[3]
    assert sum(check.passed is True for check in checks(summary)) < len(checks(summary)) / 2


def test_a_figure_that_is_undefined_is_open_not_passed(finished_run):
    summary = build_summary(finished_run)
    summary["dynamics"]["moving_psnr_db"]["8"] = None
    still = next(check for check in checks(summary) if "still picture" in check.question)
    assert still.passed is None
    assert "?" in still.measured


def test_strips_place_frames_and_errors():
    true = np.zeros((5, 4, 4, 3), np.uint8)
    predicted = true + np.uint8(10)
    assert (error_frames(predicted, true) == 20).all() and (error_frames(true, predicted) == 20).all()
    picture = strip([true, predicted], [0, 4])
    assert picture.shape == (10, 10, 4)
    assert (picture[:4, :4, 3] == 255).all() and (picture[4:6, :, 3] == 0).all()
    assert (picture[6:, 6:, :3] == 10).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.03), (9.7, 22.1), (-0.4, 0.3), (0.0, 4300.0), (5.0, 5.0)])
def test_ticks_are_round_and_cover_the_range(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high and 2 <= len(marks) <= 9
    steps = np.diff(marks)
    assert np.allclose(steps, steps[0])


@pytest.mark.parametrize(
    ("dynamics", "words"),
    [
        ({"train": {"loss": 1.0}}, "A simulator learned from 3 episodes of video (1,200 frames)"),
        ({"train": {"loss": 1.0}, "init": "tiny"}, "The simulator tiny, trained on with 3 episodes"),
        ({"train": {}, "init": "tiny"}, "The simulator tiny as it is, on 3 episodes"),
    ],
)
def test_the_report_says_what_the_simulator_learned_from(dynamics, words):
    assert origin(dynamics, {"episodes": 3, "frames": 1200}).startswith(words)
