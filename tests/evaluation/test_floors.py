from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robosim.evaluation import floors
from robosim.evaluation.floors import make_library
from tests.evaluation.by_hand import noise, stretches_of

SIZE, TIME = 16, 8


@pytest.fixture
def training(env_spec, monkeypatch):
    """Four training episodes and a held-out one of random frames; the first two begin with the same frame."""
    video = [noise(TIME, SIZE, SIZE, seed=seed).numpy() for seed in range(5)]
    video[1][0] = video[0][0]
    latents = np.random.default_rng(0).normal(size=(5 * TIME, 2)).astype(np.float32)
    episodes = [SimpleNamespace(start=e * TIME, length=TIME) for e in range(5)]
    monkeypatch.setattr(floors, "provenance", lambda folder: {folder.name: "ours"})
    return SimpleNamespace(
        spec=env_spec,
        episodes=episodes,
        video=video,
        latents=latents,
        select=lambda split: [0, 1, 2, 3] if split == "train" else [4],
        frames=lambda e, start=0, stop=None, camera=None: video[e][start:stop],
        column=lambda name: latents,
        column_provenance=lambda name: {"latent_action": "ours"},
    )


@pytest.fixture
def replayed(training):
    """Two stretches: episode 1 of the training video from its beginning, and the held-out episode."""
    latents = np.stack([training.latents[e * TIME : e * TIME + TIME - 1] for e in (1, 4)])
    frames = torch.from_numpy(np.stack([training.video[1], training.video[4]]))
    return stretches_of(frames), torch.from_numpy(latents)


def test_the_clip_itself_is_found_and_played_on(training, replayed, tmp_path):
    library = make_library(training, SimpleNamespace(), tmp_path, "cpu")
    for horizon in (1, 4, 7):
        shown = library.nearest(*replayed, horizon)
        assert shown is not None and shown.shape == (2, SIZE, SIZE, 3)
        # Episode 0 begins with the same frame; the latent actions tell the two apart.
        assert torch.equal(shown[0], torch.from_numpy(training.video[1][horizon]))


def test_held_out_frames_are_never_played(training, replayed, tmp_path):
    library = make_library(training, SimpleNamespace(), tmp_path, "cpu")
    assert set(library.episode_M.tolist()) == {0, 1, 2, 3}
    shown = library.nearest(*replayed, 1)
    assert shown is not None and not (shown[1].numpy() == np.stack(training.video[4])).all((1, 2, 3)).any()


def test_looks_go_before_latent_actions(training, replayed, tmp_path, monkeypatch):
    monkeypatch.setattr(floors, "NEAREST", 2)
    stretches, latents = replayed
    latents[0, :2] = torch.from_numpy(training.latents[3 * TIME : 3 * TIME + 2])
    shown = make_library(training, SimpleNamespace(), tmp_path, "cpu").nearest(stretches, latents, 2)
    assert shown is not None
    either = [torch.from_numpy(training.video[e][2]) for e in (0, 1)]
    assert any(torch.equal(shown[0], frame) for frame in either), "episode 3 looks otherwise"


def test_no_clip_is_long_enough(training, replayed, tmp_path):
    library = make_library(training, SimpleNamespace(), tmp_path, "cpu")
    assert library.nearest(*replayed, TIME - 1) is not None
    assert library.nearest(*replayed, TIME) is None


def test_latent_actions_of_another_model_are_made_again(training, tmp_path, monkeypatch):
    again = np.ones_like(training.latents)
    training.column_provenance = lambda name: {"latent_action": "another's"}
    monkeypatch.setattr(floors, "infer_store", lambda store, model, device: again)
    library = make_library(training, SimpleNamespace(latent_action=None), tmp_path, "cpu")
    assert library.latents is again
