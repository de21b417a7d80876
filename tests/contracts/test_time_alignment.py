"""An impulse command keeps its time through env, dataset, clip store and latent labels.

action_t acts between frames t and t + 1, and latent_action[t] describes x_t → x_{t+1}. The arm stands still but for
one command, so a shift by one frame in either direction shows in every column.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from robosim_datasets.clip_store import MOTION, ClipStore, build_clip_store
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.physics.env import PhysicsEnv, make_spec
from robosim.world_model.dynamics import led_to
from robosim.world_model.latent_action import LatentActionConfig, LatentActionModel, infer_clip

FRAMES, IMPULSE = 9, 4


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ClipStore:
    spec = make_spec(size=32)
    env = PhysicsEnv(spec, task="reach")
    observation, info = env.reset(seed=3)
    command = observation["agent_pos"].copy()
    for _ in range(6):  # let gravity and the ramp settle
        observation, *_ = env.step(command)
    rows: dict[str, list[np.ndarray]] = {"frames": [], "state": [], "action": [], "place": []}
    for t in range(FRAMES):
        if t == IMPULSE:
            command = command + np.array([0.2] + [0.0] * 7, np.float32)
        rows["frames"].append(observation["pixels"]["front"][0])
        rows["state"].append(observation["agent_pos"][0])
        rows["action"].append(command[0])
        rows["place"].append(np.concatenate([info[name][0] for name in ("tool", "object", "goal")]))
        observation, _, _, _, info = env.step(command)
    root = tmp_path_factory.mktemp("aligned")
    stacked = {name: np.stack(values) for name, values in rows.items()}
    with DatasetWriter(root / "dataset", spec, {}) as writer:
        for split in ("train", "val"):
            writer.add(
                Episode(
                    frames={"front": stacked["frames"]},
                    state=stacked["state"].astype(np.float32),
                    action=stacked["action"].astype(np.float32),
                    environment_state=stacked["place"].astype(np.float32),
                    reward=np.zeros(FRAMES, np.float32),
                    success=np.zeros(FRAMES, bool),
                    task="reach",
                    instruction=spec.task("reach").instruction,
                    behaviour="explore",
                    split=split,
                    seed=3,
                )
            )
    return build_clip_store(root / "dataset", root / "clips", progress=False)


def test_the_command_stands_at_its_own_row(store):
    change = np.abs(np.diff(store.column("action")[:FRAMES, 0]))
    assert change.argmax() == IMPULSE - 1 and np.count_nonzero(change > 0.01) == 1


def test_the_joint_moves_between_its_row_and_the_next(store):
    change = np.abs(np.diff(store.column("state")[:FRAMES, 0]))
    assert change.argmax() == IMPULSE and change[:IMPULSE].max() < 0.1 * change[IMPULSE]


def test_the_picture_moves_between_its_row_and_the_next(store):
    motion = store.column(MOTION)[:FRAMES]
    assert motion.argmax() == IMPULSE and motion[:IMPULSE].max() < 0.3 * motion[IMPULSE]


def test_the_latent_action_stands_at_the_command_s_row(store):
    torch.manual_seed(0)
    model = LatentActionModel(LatentActionConfig(channels=8, blocks=1), 32).eval()
    latent = infer_clip(model, torch.from_numpy(np.array(store.frames(0))))
    unlike_standing = (latent[:-1] - latent[0]).norm(dim=1)
    assert unlike_standing.argmax() == IMPULSE
    assert unlike_standing[:IMPULSE].max() < 0.5 * unlike_standing[IMPULSE]


def test_the_dynamics_takes_it_in_at_the_next_frame():
    latent = torch.zeros(1, FRAMES, 5)
    latent[0, IMPULSE] = 1
    assert led_to(latent)[0].abs().sum(-1).nonzero().flatten().tolist() == [IMPULSE + 1]
