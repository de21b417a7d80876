"""A run folder of toy size as `robosim import` and training leave it: a drawn square, models with random weights.

Its labels are what a source may have: commands and states of several kinds, or video alone; never positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from robosim_datasets.clip_store import ClipStore, build_clip_store
from robosim_datasets.episode import Episode
from robosim_datasets.lerobot_io import DatasetWriter

from robosim.adapter import FitConfig
from robosim.spec import EnvSpec, RobotSpec, TaskSpec
from robosim.training.adapt import AdaptConfig, adapt
from robosim.training.columns import add_tokens, infer_store
from tests.toy_run import SIZE, write_toy_models
from tests.world_model.conftest import make_world

CAMERAS = ("front", "wrist")

LENGTH = 12

ADAPT = AdaptConfig(labels=60, video_frames=20, fit=FitConfig(colours=8))

COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "video": ((), ()),
    "joints": (("x", "y", "gripper"), ("x", "y", "gripper")),
    "motions": (("px", "py", "angle", "width"), ("x", "y", "gripper")),
    "motions without states": ((), ("x", "y", "gripper")),
    "targets beside other states": (("px", "py", "angle", "width"), ("x", "y", "gripper")),
}
"""Names of a state's and of a command's numbers, by kind of run."""

KINDS = {"video": "none", "joints": "joint_position", "targets beside other states": "joint_position"}


def write_imported_run(run: Path, kind: str) -> Path:
    """A run with six training and two held-out episodes, trained and not yet adapted."""
    write_imported_clips(run, kind)
    return write_trained(run)


def write_imported_clips(run: Path, kind: str, held_out: int = 2) -> ClipStore:
    """Dataset and clips of eight episodes, of which the last `held_out` are held out."""
    spec = imported_spec(kind)
    with DatasetWriter(run / "dataset", spec, {"source": "drawn"}) as writer:
        for seed in range(8):
            writer.add(make_episode(spec, seed, "train" if seed < 8 - held_out else "val"))
    return build_clip_store(run / "dataset", run / "clips", progress=False)


def write_trained(run: Path) -> Path:
    """Models with random weights beside the clips of `run`, and the columns that they add."""
    store, world = ClipStore(run / "clips"), make_world(size=SIZE)
    write_toy_models(run, world)
    add_tokens(store, world.tokenizer, run / "tokenizer", "cpu")
    latents = infer_store(store, world.latent_action, "cpu")
    store.add_column("latent_action", latents, {"made": "toy"})
    return run


def write_adapted_run(run: Path, kind: str) -> Path:
    adapt(ADAPT, write_imported_run(run, kind), seed=0)
    return run


def imported_spec(kind: str) -> EnvSpec:
    states, commands = COLUMNS[kind]
    size = len(commands)
    robot = RobotSpec("imported", commands, ("unknown",) * size, (-40.0,) * size, (40.0,) * size)
    return EnvSpec(
        robot,
        (TaskSpec("imported", "push it", 5, 0.0, "none"),),
        cameras=CAMERAS,
        size=SIZE,
        action_kind=KINDS.get(kind, "ee_delta"),  # type: ignore[arg-type]
        labels=tuple(name for name, columns in (("state", states), ("action", commands)) if columns),
        state_names=states,
    )


def make_episode(spec: EnvSpec, seed: int, split: str) -> Episode:
    """A square that wanders; `px`, `py`, `x` and `y` are its place, or in a motion its next step, in pixels."""
    rng = np.random.default_rng(seed)
    place = np.clip(np.cumsum(rng.integers(-3, 4, (LENGTH, 2)), 0) + SIZE // 2, 2, SIZE - 8).astype(
        np.float32
    )
    frames = np.full((LENGTH, SIZE, SIZE, 3), 90, np.uint8)
    for frame, (row, column) in zip(frames, place.astype(int), strict=True):
        frame[row : row + 6, column : column + 6] = (230, 60, 40)
    following = np.concatenate([place[1:], place[-1:]])
    moved = following if spec.action_kind == "joint_position" else following - place
    state = np.concatenate([place, rng.normal(size=(LENGTH, 2))], 1)[:, : len(spec.state_columns)]
    action = np.concatenate([moved, np.zeros((LENGTH, 1))], 1)[:, : len(spec.action_columns)]
    return Episode(
        frames={"front": frames, "wrist": frames[:, ::-1].copy()},
        state=state.astype(np.float32),
        action=action.astype(np.float32),
        environment_state=np.zeros((LENGTH, 0), np.float32),
        reward=np.zeros(LENGTH, np.float32),
        success=np.zeros(LENGTH, bool),
        task="imported",
        instruction="push it",
        behaviour="imported",
        split=split,
        seed=seed,
    )
