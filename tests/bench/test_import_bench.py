"""`robosim bench import`: every layout is written and imported, and the figures are those of the import."""

from __future__ import annotations

import json

import pytest

from robosim.bench.importing import WRITERS, bench_import
from robosim.bench.layouts import make_recording, write_videos
from robosim.errors import ConfigError

SMALL = ["episodes=2", "length=12", "height=32", "width=48", "size=16", "workers=1"]


def test_every_layout_gives_the_same_frames(capsys):
    bench_import("bench import", SMALL)
    result = json.loads(capsys.readouterr().out)
    rows = {row["layout"]: row for row in result["results"]}
    assert set(rows) == set(WRITERS)
    for layout, row in rows.items():
        assert (row["episodes"], row["frames_before"]) == (2, 12 + 13), layout
        assert row["frames_after"] == 4 + 5, layout  # every third frame of 30 a second
        assert row["cameras"] == (1 if layout == "video" else 2)
        assert row["seconds"] > 0 and row["megabytes_source"] > 0 and row["megabytes_clips"] > 0
        assert row["frames_per_second"] == pytest.approx(9 * row["cameras"] / row["seconds"])


def test_datasets_of_ones_own_stand_beside_it(capsys, tmp_path):
    write_videos(tmp_path / "mine", make_recording(episodes=3, length=10, fps=10))
    bench_import("bench import", [*SMALL, "layouts=[]", f"sources=[{tmp_path / 'mine'}]"])
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert (row["source"], row["episodes"], row["frames_after"]) == ("mine", 3, 10 + 11 + 12)


def test_a_misspelt_layout_is_one_sentence():
    with pytest.raises(ConfigError, match=r"unknown layout 'rdls'; did you mean 'rlds'"):
        bench_import("bench import", ["layouts=[rdls]"])
