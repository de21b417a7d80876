"""The labelled transitions: the only place where joint commands and states enter beside the video.

Row t of an episode holds frame t and the command that acts between frames t and t + 1, so an episode of T frames
has T − 1 transitions; the last frame still teaches the probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robosim.errors import DatasetError

STATE_COLUMNS = {"tool": slice(0, 3), "object": slice(3, 6), "goal": slice(6, 9)}
"""Where each point lies in an `environment_state` row; metres, world frame."""


@dataclass(frozen=True)
class Transitions:
    """M transitions: what the action adapter learns from, float32. Joints in rad (gripper 0…1); in recordings from
    elsewhere, `joints` are the S numbers of a state, and units are the recordings'."""

    command_MJ: Tensor
    previous_command_MJ: Tensor
    joints_MJ: Tensor
    next_joints_MJ: Tensor
    latent_MA: Tensor
    episode_M: Tensor

    def __len__(self) -> int:
        return len(self.command_MJ)

    def batch(self) -> dict[str, Tensor]:
        """The columns by the names that `ActionAdapter.forward` expects."""
        return {
            "command": self.command_MJ,
            "previous_command": self.previous_command_MJ,
            "joints": self.joints_MJ,
            "next_joints": self.next_joints_MJ,
            "latent": self.latent_MA,
        }


@dataclass(frozen=True)
class LabelledEpisodes:
    """Whole episodes, one array a column, one entry an episode of T frames.

    frames: uint8 [T,H,W,3]; joints, commands: float32 [T,J]; points: float32 [T,9] (tool, object, goal);
    latents: float32 [T−1,A], inferred from the frames, hence no label; tasks: the task's name. Recordings from
    elsewhere may have states of another size in `joints`, [T,S] or [T,0], and have no positions: points are [T,0].
    """

    frames: list[np.ndarray]
    joints: list[np.ndarray]
    commands: list[np.ndarray]
    points: list[np.ndarray]
    latents: list[np.ndarray]
    tasks: list[str]
    states_are_joints: bool = True
    """Whether commands are targets of the states' own numbers."""

    def __post_init__(self) -> None:
        if not self.frames:
            raise DatasetError("no labelled episode: raise the label limit or collect shorter episodes")
        columns = zip(self.frames, self.joints, self.commands, self.points, self.latents, strict=True)
        for index, (frames, joints, commands, points, latents) in enumerate(columns):
            lengths = {len(frames), len(joints), len(commands), len(points), len(latents) + 1}
            if len(lengths) != 1 or len(frames) < 2:
                raise DatasetError(
                    f"labelled episode {index}: its columns have {sorted(lengths)} rows (latents + 1); "
                    "they must agree and hold at least 2 frames; collect the dataset again"
                )

    @property
    def has_points(self) -> bool:
        """Whether tool, object and goal are known."""
        return self.points[0].shape[1] > 0

    @property
    def num_transitions(self) -> int:
        return sum(len(latents) for latents in self.latents)

    def transitions(self) -> Transitions:
        """Every transition in order. The command before the first one is the first posture; where states are other
        numbers, it is the first command itself."""
        firsts = self.joints if self.states_are_joints else self.commands
        previous = [np.concatenate([q[:1], a[:-2]]) for q, a in zip(firsts, self.commands, strict=True)]
        episode = [np.full(len(z), index) for index, z in enumerate(self.latents)]
        return Transitions(
            command_MJ=_stack(a[:-1] for a in self.commands),
            previous_command_MJ=_stack(previous),
            joints_MJ=_stack(q[:-1] for q in self.joints),
            next_joints_MJ=_stack(q[1:] for q in self.joints),
            latent_MA=_stack(self.latents),
            episode_M=torch.from_numpy(np.concatenate(episode)),
        )

    def frame_episodes(self) -> Tensor:
        """int64 [F]: the episode of each frame, frames of all episodes laid end to end."""
        return torch.from_numpy(np.concatenate([np.full(len(x), i) for i, x in enumerate(self.frames)]))

    def shows_object(self) -> Tensor:
        """bool [F]: whether each frame's episode has an object. Tasks without one label it as their goal."""
        thing, goal = STATE_COLUMNS["object"], STATE_COLUMNS["goal"]
        has = [not np.array_equal(points[:, thing], points[:, goal]) for points in self.points]
        return torch.tensor(has)[self.frame_episodes()]

    def take(self, episodes: Sequence[int]) -> LabelledEpisodes:
        """The episodes at these positions."""
        columns = (self.frames, self.joints, self.commands, self.points, self.latents, self.tasks)
        taken = ([column[i] for i in episodes] for column in columns)
        return LabelledEpisodes(*taken, self.states_are_joints)  # type: ignore[arg-type]


def _stack(rows) -> Tensor:
    return torch.from_numpy(np.concatenate(list(rows)).astype(np.float32))
