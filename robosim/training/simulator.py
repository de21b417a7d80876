"""The learned simulator of a run folder as policies meet it: expert video, frames to start from, an environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from robosim_datasets.clip_store import ClipStore
from torch import Tensor

from robosim.adapter import load_adapter
from robosim.errors import DatasetError
from robosim.training.cloning import Examples
from robosim.world_model import LearnedEnv, WorldModel


class LearnedTask:
    """One task of a run. Raises `DatasetError` or `CheckpointError` when a part of the run is missing."""

    def __init__(self, run: Path, task: str, device: str = "cpu") -> None:
        self.clips = ClipStore(run / "clips")
        self.spec, self.task = self.clips.spec, self.clips.spec.task(task)
        self.spec = replace(self.spec, cameras=self.spec.cameras[:1])  # the one that was learned
        self.world, self.bundle = WorldModel.load(run, device), load_adapter(run / "adapter")

    def env(
        self,
        starts: Tensor,
        num_envs: int | None = None,
        action_mode: Literal["command", "latent"] = "command",
        decoding_steps: int | None = None,
    ) -> LearnedEnv:
        """A simulator whose episodes begin at `starts` uint8 [E, H, W, 3]; a row each unless `num_envs`.

        `decoding_steps` None decodes as the world model was set up to.
        """
        sampling = self.world.sampling
        if decoding_steps is not None:
            sampling = replace(sampling, steps=decoding_steps)
        return LearnedEnv(
            world=replace(self.world, sampling=sampling),
            spec=self.spec,
            task=self.task.name,
            adapter=self.bundle.adapter,
            probe=self.bundle.probe,
            judge=self.bundle.judge,
            num_envs=num_envs or len(starts),
            start_frames=starts[:, None].numpy(),
            action_mode=action_mode,
        )

    def first_frames(self, split: str) -> Tensor:
        """First frame of every episode of a split: uint8 [E, H, W, 3]."""
        episodes = self._episodes(split)
        return torch.from_numpy(np.concatenate([self.clips.frames(episode, 0, 1) for episode in episodes]))

    def start_frames(self, count: int, seed: int) -> Tensor:
        """`count` frames of training episodes, uint8 [count, H, W, 3]: half of them first frames, half any frame.

        First frames are what a policy will meet; the others show it where good and bad motions lead.
        """
        generator = np.random.default_rng(seed)
        frames = []
        for number, episode in enumerate(generator.choice(self._episodes("train"), size=count).tolist()):
            at = int(generator.integers(self.clips.episodes[episode].length)) if number % 2 else 0
            frames.append(self.clips.frames(episode, at, at + 1))
        return torch.from_numpy(np.concatenate(frames))

    def examples(self, split: str) -> list[Examples]:
        """Expert frames with the latent action that followed: as recorded, and through the tokenizer."""
        tokens, latents = self.clips.column("tokens"), self.clips.column("latent_action")
        recorded, decoded, wanted = [], [], []
        for episode in self._episodes(split, "expert"):
            row = self.clips.episodes[episode]
            # No motion follows an episode's last frame.
            rows = slice(row.start, row.start + row.length - 1)
            recorded.append(torch.from_numpy(self.clips.frames(episode, 0, row.length - 1).copy()))
            decoded.append(self.world.decode_tokens(torch.from_numpy(tokens[rows].copy()).long()).cpu())
            wanted.append(torch.from_numpy(latents[rows].copy()).float())
        target = torch.cat(wanted)
        return [Examples.equal(torch.cat(recorded), target), Examples.equal(torch.cat(decoded), target)]

    def _episodes(self, split: str, behaviour: str | None = None) -> list[int]:
        episodes = self.clips.select(split=split, task=self.task.name, behaviour=behaviour)
        if not episodes:
            kind = f"{behaviour} {split}" if behaviour else split
            raise DatasetError(f"{self.clips.path} has no {kind} episode of {self.task.name!r}; collect some")
        return episodes


def open_learned_env(run: Path, task: str, num_envs: int, device: str = "cpu") -> LearnedEnv:
    """The learned simulator of a run folder; episodes begin at the first frames of its held-out episodes."""
    learned = LearnedTask(run, task, device)
    return learned.env(learned.first_frames("val"), num_envs)
