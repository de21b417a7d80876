"""The stage that ties the learned simulator to a robot: at most `labels` transitions with commands and states.

Everything else it reads is video: frames, tokens and the latent actions inferred from them. Recordings from elsewhere
may have no positions, and states that aren't joints or none; there is then no judge (see `robosim.adapter`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.splits import check_commands, count_transitions, held_out_labelled, label_budget
from torch import Tensor

from robosim.adapter import (
    FitConfig,
    LabelledEpisodes,
    evaluate_adapter,
    fit_adapter,
    load_adapter,
    save_adapter,
)
from robosim.adapter.fit import ForwardKinematics, probe_figures, read_all
from robosim.errors import ConfigError, UnsupportedError
from robosim.shipped import locate
from robosim.spec import LABELS, EnvSpec
from robosim.world_model.latent_action import BOUND
from robosim.world_model.tokenizer import Tokenizer
from robosim.world_model.world import load_tokenizer

HELD_OUT_EPISODES = 24
"""Validation episodes that the figures are taken on, at most."""


@dataclass(frozen=True)
class AdaptConfig:
    labels: int = 200
    """Labelled transitions, at most; whole episodes."""
    video_frames: int = 200
    """Unlabelled frames from which the probe learns its colours, recorded ones and as many decoded ones."""
    fit: FitConfig = field(default_factory=FitConfig)
    init: str | None = None
    """A run, a saved simulator or a shipped name: its maps of commands are taken where they tell these labels' latent
    actions better than maps fitted on the labels tell left-out ones; they will where the latent actions are the same
    model's and the arm is the same."""

    def __post_init__(self) -> None:
        if self.labels < 1 or self.video_frames < 1:
            raise ValueError(
                f"labels ({self.labels}) and video_frames ({self.video_frames}) must be at least 1"
            )


def adapt(config: AdaptConfig, run: Path, seed: int, device: str = "cpu") -> dict[str, Any]:
    """Fit adapter, probe and judge from the run's clips into `adapter/`; return their held-out figures.

    Besides `labels` and `episodes`, the figures are those of `evaluate_adapter` on validation episodes; under
    `decoded` the probe's on the same frames as the tokenizer gives them back, which is what it meets at play; under
    `left_out` the errors on left-out episodes of the labels. Of a mixture, labels are those of its parts with commands.
    `init` is named, and as `maps_from` where its maps were taken; `left_out` has what they tell. Raises `DatasetError`
    without commands or validation episodes that have some.
    """
    store = ClipStore(run / "clips")
    check_commands(store, config.labels)
    held_out = held_out_labelled(store)
    chosen = label_budget(store, config.labels, seed=seed)
    known = None if config.init is None else load_adapter(locate(config.init) / "adapter").adapter
    tokenizer = load_tokenizer(run / "tokenizer").to(device).eval()

    labels = labelled_episodes(store, chosen)
    decoded = [decoded_frames(store, tokenizer, episode_rows(store, e), device) for e in chosen]
    video = unlabelled_video(store, tokenizer, config.video_frames, seed, device)
    bundle, left_out = fit_adapter(labels, decoded, video, store.spec, BOUND, config.fit, seed, known)
    save_adapter(run / "adapter", bundle)

    spread = np.linspace(0, len(held_out) - 1, min(HELD_OUT_EPISODES, len(held_out))).astype(int)
    judged = labelled_episodes(store, [held_out[i] for i in spread])
    kinematics = forward_kinematics(store.spec) if judged.has_points else None
    figures = evaluate_adapter(bundle, judged, store.spec, kinematics, seed)
    if judged.has_points:
        figures["tool_by"] = "regression on joints" if kinematics is None else "the arm's own kinematics"
    seen = np.concatenate(
        [decoded_frames(store, tokenizer, episode_rows(store, held_out[i]), device) for i in spread]
    )
    figures["decoded"] = probe_figures(read_all(bundle.probe, seen), judged)
    used: dict[str, Any] = {"labels": count_transitions(store, chosen), "episodes": len(chosen)}
    if config.init is not None:
        used["init"] = locate(config.init).resolve().name
        used |= {"maps_from": used["init"]} if bundle.adapter is known else {}
    return used | figures | {"left_out": left_out}


def labelled_episodes(store: ClipStore, episodes: list[int]) -> LabelledEpisodes:
    """Whole labelled episodes with their labels; those that the store doesn't have are [T, 0]."""
    spec, rows = store.spec, [episode_rows(store, episode) for episode in episodes]

    def column(name: str) -> list[np.ndarray]:
        there = name in spec.labels or name not in LABELS
        return [store.column(name)[r] if there else np.zeros((len(r), 0), np.float32) for r in rows]

    columns = ("state", "action", "environment_state", "latent_action")
    joints, commands, points, latents = map(column, columns)
    return LabelledEpisodes(
        frames=[np.array(store.frames(episode)) for episode in episodes],
        joints=joints,
        commands=commands,
        points=points,
        latents=[latent[:-1] for latent in latents],
        tasks=[store.episodes[episode].task for episode in episodes],
        states_are_joints=spec.action_kind == "joint_position" and spec.state_columns == spec.action_columns,
    )


def unlabelled_video(store: ClipStore, tokenizer: Tokenizer, count: int, seed: int, device: str) -> Tensor:
    """`count` frames drawn from training video, then the same decoded from their tokens: uint8 [2·count,H,W,3]."""
    rows = np.concatenate([episode_rows(store, episode) for episode in store.select(split="train")])
    rows = np.sort(np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False))
    starts = [row.start for row in store.episodes]
    episodes = np.searchsorted(starts, rows, side="right") - 1
    frames = [
        store.frames(int(e), int(r) - starts[e], int(r) - starts[e] + 1)
        for e, r in zip(episodes, rows, strict=True)
    ]
    decoded = decoded_frames(store, tokenizer, rows, device)
    return torch.from_numpy(np.concatenate([*frames, decoded]))


@torch.no_grad()
def decoded_frames(store: ClipStore, tokenizer: Tokenizer, rows: np.ndarray, device: str) -> np.ndarray:
    """Frames of the store's `rows` as their tokens give them back, uint8 [N,H,W,3]."""
    tokens = torch.from_numpy(store.column("tokens")[rows].astype(np.int64)).to(device)
    frames = torch.cat([tokenizer.decode(part) for part in tokens.split(128)])
    return (frames * 255).round().to(torch.uint8).cpu().numpy()


def episode_rows(store: ClipStore, episode: int) -> np.ndarray:
    """The rows of an episode in every column."""
    row = store.episodes[episode]
    return np.arange(row.start, row.start + row.length)


def forward_kinematics(spec: EnvSpec) -> ForwardKinematics | None:
    """The robot's own kinematics where this installation has a model of it, else None."""
    try:
        from robosim.physics.arms.catalogue import robot_of
        from robosim.physics.kinematics import InverseKinematics

        robot = robot_of(spec.robot)
    except (ConfigError, UnsupportedError, ImportError):
        return None
    kinematics = InverseKinematics(robot)
    return lambda joints: np.stack([kinematics.tool(row[: robot.num_arm_joints]) for row in joints])
