"""The probes that read places off frames when a simulator is measured: one a task, of more labels than its adapter's.

An adapter sees some 200 labels of a handful of episodes, and its probe then misreads tools by two or three
centimetres: about what the bars allow the simulator itself. Whoever measures may know more. So each task has a probe of
its own, fitted on a few frames each of many *training* episodes, as recorded and as the tokenizer gives them back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore
from torch import Tensor

from robosim.adapter import KeypointProbe
from robosim.adapter.keypoint_probe import KeypointProbeConfig
from robosim.evaluation.stretches import spread
from robosim.progress import Bar
from robosim.training.adapt import decoded_frames, episode_rows
from robosim.world_model.tokenizer import Tokenizer

EPISODES = 60
"""Training episodes of a task that are looked at, at most."""

FRAMES = 5
"""Frames of each, evenly spread: neighbours in time teach little."""

FEWEST = 8
"""Episodes below which the adapter's probe stays the better one."""


def fit_probes(
    store: ClipStore, tokenizer: Tokenizer, tasks: Sequence[str], seed: int, device: str, bar: Bar
) -> dict[str, KeypointProbe]:
    """A probe for each of `tasks` with `FEWEST` training episodes or more that know joints and positions."""
    found = {}
    for task in tasks:
        bar.advance(1)
        if len(episodes := labelled(store, task)) < FEWEST:
            continue
        chosen = [episodes[i] for i in spread(len(episodes), EPISODES)]
        rows = [episode_rows(store, episode) for episode in chosen]
        picks = [spread(len(row), FRAMES) for row in rows]
        row_N = np.concatenate([row[pick] for row, pick in zip(rows, picks, strict=True)])
        recorded = np.concatenate(
            [np.array(store.frames(e))[pick] for e, pick in zip(chosen, picks, strict=True)]
        )
        frames = torch.from_numpy(np.concatenate([recorded, decoded_frames(store, tokenizer, row_N, device)]))
        joints, points = (both(store.column(name)[row_N]) for name in ("state", "environment_state"))
        episode_N = torch.from_numpy(np.concatenate([np.full(len(p), e) for e, p in enumerate(picks)]))
        probe = KeypointProbe(KeypointProbeConfig(joints.shape[1]))
        # Colours from these frames: in a mixture of tasks, one task's small object may get none of its own.
        probe.fit(frames, joints, points, episode_N.repeat(2), frames, seed)
        found[task] = probe
    return found


def labelled(store: ClipStore, task: str) -> list[int]:
    """Training episodes of a task whose every state and position is known."""
    names = ("state", "environment_state")
    if not set(names) <= set(store.spec.labels):
        return []
    columns = [store.column(name) for name in names]
    episodes = store.select(split="train", task=task, labelled=True)
    return [e for e in episodes if all(np.isfinite(c[episode_rows(store, e)]).all() for c in columns)]


def both(values: np.ndarray) -> Tensor:
    """float32: the rows once for the recorded frames and once for the decoded ones."""
    return torch.from_numpy(np.asarray(values, np.float32)).repeat(2, 1)
