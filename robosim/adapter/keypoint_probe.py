"""Reads a frame: joints, tool, object, goal, in rad and metres, from a few hundred labels.

The keypoints are where colours lie; the colours come from unlabelled video. Everything else is ridge regression in
closed form, its choices made on left-out episodes: a keypoint network trained on so few labels read the tool twice
as badly. Object and goal are landmarks of their own, because ten episodes show them at few places.

Recordings from elsewhere know no positions: of them the probe learns the numbers of a state, the rest is NaN.

One small picture doesn't show all joints, the turn of a wrist or a closing gripper least, and many cameras don't show
what a number of a state means. So each has a trust: the share of its variance that is told of left-out episodes, 0
where the labels don't vary or are a single episode.

Give the probe labelled frames both as recorded and as the tokenizer gives them back: read from recorded frames alone,
it is lost on imagined ones.

Legend of shape suffixes: N frames, H/W pixels or cells, K colours, J joints (or numbers of a state), O
outputs (joints, then tool).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robosim.adapter.colours import colour_codebook, memberships
from robosim.adapter.labels import STATE_COLUMNS
from robosim.adapter.landmark import Landmark
from robosim.adapter.moments import MomentRegression
from robosim.world_model.protocols import ProbeReading

SMALLEST_SCALE = 1e-2
"""Rad or metres: outputs that hardly move in the labels aren't blown up to unit size."""

SMALLEST_SPREAD = 1e-6
"""Sum of squares, in those units, below which an output doesn't vary in the labels."""


@dataclass(frozen=True)
class KeypointProbeConfig:
    num_joints: int = 8
    colours: int = 32
    """Of the codebook in which landmarks and the arm's parts are found."""
    points: bool = True
    """Whether tool, object and goal are read too."""


class KeypointProbe(nn.Module):
    """Implements the world model's `FrameProbe`."""

    codebook_K3: Tensor
    mean_O: Tensor
    scale_O: Tensor
    trust_O: Tensor

    def __init__(self, config: KeypointProbeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or KeypointProbeConfig()
        outputs = config.num_joints + (3 if config.points else 0)
        self.arm = MomentRegression(config.colours, outputs)
        if config.points:
            self.object, self.goal = Landmark(config.colours), Landmark(config.colours)
        self.register_buffer("codebook_K3", torch.zeros(config.colours, 3))
        self.register_buffer("mean_O", torch.zeros(outputs))
        self.register_buffer("scale_O", torch.ones(outputs))
        self.register_buffer("trust_O", torch.zeros(outputs))

    @classmethod
    def from_config(cls, data: dict[str, Any]) -> KeypointProbe:
        """An unfitted probe of these sizes. Raises `ValueError` naming an unknown key and the valid ones."""
        valid = set(KeypointProbeConfig.__dataclass_fields__)
        if unknown := set(data) - valid:
            raise ValueError(
                f"unknown probe keys {', '.join(sorted(unknown))}; choose from {', '.join(sorted(valid))}"
            )
        return cls(KeypointProbeConfig(**data))

    def to_config(self) -> dict[str, Any]:
        return asdict(self.config)

    @torch.no_grad()
    def read(self, frames: Tensor) -> ProbeReading:
        """`frames` uint8 [N,H,W,3] → joints [N,J] (rad, gripper 0…1), tool, object, goal [N,3] (metres or NaN)."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
            raise ValueError(f"frames must be uint8 [N,H,W,3], got {frames.dtype} {tuple(frames.shape)}")
        member_NKHW = memberships(frames.to(self.codebook_K3.device), self.codebook_K3)
        arm_NO = self.arm(member_NKHW)
        if not self.config.points:
            return self._reading(arm_NO)
        return self._reading(arm_NO, self.object(member_NKHW)[0], self.goal(member_NKHW)[0])

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean error in metres of what is read off `frames` [N,H,W,3] against `points` [N,9] and `joints` [N,J]."""
        reading = self.read(batch["frames"])
        metrics = {"joints_error_rad": (reading.joints - batch["joints"]).abs().mean()}
        for name, columns in STATE_COLUMNS.items():
            metrics[f"{name}_error_m"] = (
                (getattr(reading, name) - batch["points"][:, columns]).norm(dim=1).mean()
            )
        return torch.stack([metrics[f"{name}_error_m"] for name in STATE_COLUMNS]).mean(), metrics

    @torch.no_grad()
    def fit(
        self,
        frames: Tensor,
        joints: Tensor,
        points: Tensor,
        episodes: Tensor,
        video: Tensor,
        seed: int,
        shows_object: Tensor | None = None,
    ) -> ProbeReading:
        """Colours from unlabelled `video` uint8 [V,H,W,3], the rest from labels; in closed form.

        `frames` uint8 [N,H,W,3], `joints` [N,J], `points` [N,9] (or [N,0]), `episodes` int64 [N]; `shows_object` bool
        [N]: the frames that the object is learned from (default: all). Returns the readings of these frames, each made
        with its episode left out.
        """
        arm_NO = torch.cat([joints, points[:, STATE_COLUMNS["tool"]]], 1)
        if arm_NO.shape[1]:
            self.mean_O.copy_(arm_NO.mean(0))
            self.scale_O.copy_(arm_NO.std(0).clamp_min(SMALLEST_SCALE))
        self.codebook_K3.copy_(colour_codebook(video, self.config.colours, seed))
        member_NKHW = memberships(frames, self.codebook_K3)
        scaled_NO = (arm_NO - self.mean_O) / self.scale_O
        held_out_NO = self.arm.fit(member_NKHW, scaled_NO, episodes)
        left_O, all_O = (held_out_NO - scaled_NO).square().sum(0), scaled_NO.square().sum(0)
        told_O = (1 - left_O / all_O.clamp_min(SMALLEST_SPREAD)).clamp(0, 1) * (all_O > SMALLEST_SPREAD)
        self.trust_O.copy_(told_O if len(episodes.unique()) > 1 else torch.zeros_like(told_O))
        if not self.config.points:
            return self._reading(held_out_NO)
        # The object is pushed about, the goal stands still: the object shows more of the plane.
        rows = torch.ones(len(frames), dtype=torch.bool) if shows_object is None else shows_object
        if not rows.any():  # no task has an object: the goal stands for it
            rows = ~rows
        left_out = self.object.fit(
            member_NKHW[rows], points[rows][:, STATE_COLUMNS["object"]], episodes[rows]
        )
        objects = self.object(member_NKHW)[0]
        objects[rows] = left_out
        goals = self.goal.fit(member_NKHW, points[:, STATE_COLUMNS["goal"]], episodes, like=self.object)
        return self._reading(held_out_NO, objects, goals)

    def _reading(
        self, arm_NO: Tensor, objects: Tensor | None = None, goals: Tensor | None = None
    ) -> ProbeReading:
        arm_NO = arm_NO * self.scale_O + self.mean_O
        if objects is None or goals is None:
            unknown = arm_NO.new_full((len(arm_NO), 3), torch.nan)
            return ProbeReading(arm_NO, unknown, unknown, unknown, self.trust_O)
        return ProbeReading(arm_NO[:, :-3], arm_NO[:, -3:], objects, goals, self.trust_O[:-3])
