"""Measuring probes: one a task, from training episodes alone, where there are enough that know what they show."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from robosim_datasets.clip_store import build_clip_store
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.adapter import KeypointProbe
from robosim.evaluation.drift import read_places
from robosim.evaluation.instrument import FEWEST, fit_probes, labelled
from robosim.evaluation.measuring import usable_probes
from robosim.physics.recording import Recorder
from robosim.physics.tasks import make_spec
from tests.evaluation.by_hand import NoBar
from tests.toy_run import SIZE, make_toy_bundle
from tests.world_model.conftest import make_world


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """`FEWEST` + 2 training episodes of `reach`, two of `push_target`, and held-out ones of both."""
    folder = tmp_path_factory.mktemp("episodes")
    recorder = Recorder("panda", SIZE)
    spec = make_spec("panda", ["reach", "push_target"], SIZE)
    with DatasetWriter(folder / "dataset", spec, {"renderer": {"kind": "warp"}}) as writer:
        for seed in range(FEWEST + 5):
            writer.add(recorder.record("reach", "expert", seed, "train" if seed < FEWEST + 2 else "val"))
        for seed in range(3):
            writer.add(recorder.record("push_target", "expert", seed, "train" if seed < 2 else "val"))
    return build_clip_store(folder / "dataset", folder / "clips", progress=False)


@pytest.fixture(scope="module")
def tokenizer(store):
    """Tokens are the frame's own row, and decode to it."""
    frames = np.concatenate([store.frames(e) for e in range(len(store.episodes))])
    rows = np.arange(len(frames), dtype=np.int16)[:, None].repeat(4, 1)
    store.add_column("tokens", rows, "rows")
    return SimpleNamespace(decode=lambda tokens: torch.from_numpy(frames[tokens[:, 0].numpy()]).float() / 255)


def test_a_task_with_enough_episodes_gets_a_probe_that_reads_held_out_frames(store, tokenizer):
    probes = fit_probes(store, tokenizer, ["reach", "push_target"], 0, "cpu", NoBar())
    assert set(probes) == {"reach"}, "two episodes of the other are too few"
    held_out = store.select(split="val", task="reach")
    frames = torch.from_numpy(np.concatenate([store.frames(e) for e in held_out]))
    places = np.concatenate([rows_of(store, e, "environment_state") for e in held_out])[:, :3]
    read = read_places(probes, frames[:, None], np.array(["reach"] * len(frames))).tool[:, 0]
    middle = places.mean(0)
    off, spread = (np.linalg.norm(x - places, axis=1).mean() for x in (read, middle))
    assert off < 0.6 * spread


def rows_of(store, episode, name):
    start = store.episodes[episode].start
    return store.column(name)[start : start + store.episodes[episode].length]


def test_only_training_episodes_with_all_labels_count(store, monkeypatch):
    assert labelled(store, "reach") == store.select(split="train", task="reach")
    holes = {name: np.array(store.column(name)) for name in ("state", "environment_state")}
    second = store.episodes[1]
    holes["environment_state"][second.start + 3, 4] = np.nan
    monkeypatch.setattr(type(store), "column", lambda self, name: holes[name])
    assert labelled(store, "reach") == [e for e in store.select(split="train", task="reach") if e != 1]


def test_where_episodes_are_few_the_adapters_probe_reads_and_that_is_said(store, monkeypatch):
    mine = KeypointProbe()
    monkeypatch.setattr("robosim.evaluation.measuring.fit_probes", lambda *given: {"reach": mine})
    bundle = make_toy_bundle(store.spec.robot)
    simulator = SimpleNamespace(clips=store, bundle=bundle, world=make_world(size=SIZE))
    stretches, missing = SimpleNamespace(tasks=["reach", "push_target"]), []
    probes = usable_probes(simulator, stretches, 0, "cpu", missing)
    assert probes == {"reach": mine, "push_target": bundle.probe}
    assert len(missing) == 1 and "of push_target are read by the adapter's own probe" in missing[0]
    simulator.bundle = None
    assert usable_probes(simulator, stretches, 0, "cpu", missing) == {} and "left out" in missing[-1]
    simulator.clips = None
    assert usable_probes(simulator, SimpleNamespace(tasks=["reach"]), 0, "cpu", []) == {}
