"""Pretraining of policies inside the learned simulator.

First behaviour cloning: the policy predicts the latent action that the world model saw between two frames of
expert video (Genie, arXiv 2402.15391, section 3.3), so that no action label is needed. Then improvement by rollouts
inside the model; a round counts only if the return imagined from held-out starts doesn't fall.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.splits import check_positions
from torch import Tensor

from robosim.checkpoint import (
    atomic_write_json,
    drop_snapshots,
    json_hash,
    load_tensors,
    read_json,
    save_tensors,
)
from robosim.progress import progress
from robosim.training.cloning import Examples, MixedBatches, cloning_error
from robosim.training.imagined import Imagined, imagine, imagined_examples
from robosim.training.loop import TrainConfig, train
from robosim.training.policies import PolicyModel, make_policy
from robosim.training.simulator import LearnedTask

SHARES_CLONING = (0.5, 0.5)
"""Of expert frames as recorded, and as the tokenizer gives them back: the policy must not tell them apart."""

SHARES_IMPROVEMENT = (0.25, 0.25, 0.5)
"""The same, and imagined frames."""

SAVE_EVERY = 100
"""Steps between snapshots, of which the last holds the result while that is being checked."""


@dataclass(frozen=True)
class PretrainConfig:
    """One policy a task: cloning, then `rounds` of improvement with `rollouts` imagined episodes each."""

    tasks: tuple[str, ...] = ("reach", "soft_push")
    policy: PolicyModel = field(default_factory=PolicyModel)
    seed: int = 0
    batch: int = 32
    cloning_steps: int = 500
    learning_rate: float = 3e-3
    rounds: int = 2
    rollouts: int = 32
    rollout_steps: int = 20
    """Most steps of an exploring episode: they begin anywhere, and the discount forgets what comes much later."""
    checks: int = 16
    """Imagined episodes from held-out starts, of full length, that judge each round."""
    decoding_steps: int = 2
    """Of the world model for each imagined frame: half of what it plays with, for twice the experience."""
    noise: float = 0.35
    """Standard deviation of the exploration noise, in units of the latent action."""
    discount: float = 0.9
    temperature: float = 1.0
    """Advantage, in standard deviations, that weighs e times as much."""
    improvement_steps: int = 100
    improvement_rate: float = 5e-4


def pretrain(config: PretrainConfig, run: Path, device: str = "cpu") -> dict[str, dict[str, Any]]:
    """Train a policy for each task from the run's clips, learned simulator and adapter.

    Writes `run/policy/<task>/pretrained_model`, a LeRobot checkpoint. An interrupted call goes on where it was when
    it is made again with the same configuration and inputs. Returns the figures of each task. Raises `DatasetError`
    where the run's video has no positions: nothing could be improved.
    """
    check_positions(ClipStore(run / "clips"), "pretrain")
    figures = {}
    for number, task in enumerate(config.tasks):
        own = replace(config, seed=config.seed + 1000 * number)
        ledger = Ledger(run / "policy" / task, json_hash([asdict(own), task]))
        if not ledger.finished:
            TaskTraining(own, LearnedTask(run, task, device), ledger, device).finish()
        figures[task] = ledger.figures()
    return figures


class Ledger:
    """What is done for one task's policy, and the weights after each round; round 0 is the cloning.

    A round's weights are written before its line, so that a line always has its weights. The ledger of another
    `request` (a hash of the configuration) is started anew.
    """

    def __init__(self, folder: Path, request: str) -> None:
        self.folder, self.request = folder, request
        self.rounds: list[dict[str, Any]] = []
        self.written = False
        path = folder / "rounds.json"
        if path.exists():
            kept = read_json(path)
            if kept["request"] == request:
                self.rounds, self.written = kept["rounds"], kept["written"]

    @property
    def checkpoint(self) -> Path:
        return self.folder / "pretrained_model"

    @property
    def finished(self) -> bool:
        return self.written and self.checkpoint.is_dir()

    def round_folder(self, number: int) -> Path:
        return self.folder / f"round_{number}"

    def add(self, policy: Any, **figures: Any) -> None:
        """Note a round and keep its weights."""
        save_tensors(self.round_folder(len(self.rounds)) / "policy.safetensors", policy.state_dict())
        self.rounds.append(figures)
        self._write()
        drop_snapshots(self.round_folder(len(self.rounds) - 1))

    def restore(self, policy: Any) -> None:
        """Load the weights of the last round."""
        folder = self.round_folder(len(self.rounds) - 1)
        policy.load_state_dict(load_tensors(folder / "policy.safetensors"))

    def write_checkpoint(self, policy: Any) -> None:
        """Write the LeRobot checkpoint, whole or not at all, and mark the work as finished."""
        from lerobot.policies.factory import make_pre_post_processors

        partial = self.folder / "pretrained_model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        policy.save_pretrained(partial)
        for processor in make_pre_post_processors(policy.config):
            processor.save_pretrained(partial)
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        partial.rename(self.checkpoint)
        self.written = True
        self._write()

    def figures(self) -> dict[str, Any]:
        """Loss of the cloning, and what the held-out imagined episodes said before and after the rounds."""
        first, last = self.rounds[0], self.rounds[-1]
        return {
            "bc_loss": first["bc_loss"],
            "bc_constant_loss": first["bc_constant_loss"],
            "imagined_return_before": first["return"],
            "imagined_return_after": last["return"],
            "imagined_success_before": first["success"],
            "imagined_success_after": last["success"],
            "rounds_accepted": sum(line["accepted"] for line in self.rounds[1:]),
            "rounds": len(self.rounds) - 1,
        }

    def _write(self) -> None:
        state = {"request": self.request, "rounds": self.rounds, "written": self.written}
        atomic_write_json(self.folder / "rounds.json", state)


class TaskTraining:
    """The rounds of one task's policy: cloning, then improvement inside the learned simulator."""

    def __init__(
        self, config: PretrainConfig, learned: LearnedTask, ledger: Ledger, device: str = "cpu"
    ) -> None:
        self.config, self.learned, self.ledger, self.device = config, learned, ledger, device
        self.name = learned.task.name
        self.policy = make_policy(config.policy, learned.spec, learned.bundle.adapter, config.seed, device)
        self.expert = learned.examples("train")

    def finish(self) -> None:
        """Do the rounds that are missing, and write the checkpoint."""
        if not self.ledger.rounds:
            self._clone()
        self.ledger.restore(self.policy)
        while len(self.ledger.rounds) <= self.config.rounds:
            self._improve(len(self.ledger.rounds))
        self.ledger.write_checkpoint(self.policy)

    def _clone(self) -> None:
        config = self.config
        self._fit(0, self.expert, SHARES_CLONING, config.cloning_steps, config.learning_rate)
        held_out = self.learned.examples("val")[0]
        self.ledger.add(self.policy, **cloning_error(self.policy, held_out), **self._check())

    def _improve(self, number: int) -> None:
        """One round: act with noise, learn from what went well, keep the result if it is no worse."""
        config, before = self.config, self.ledger.rounds[-1]
        starts = self.learned.start_frames(config.rollouts, config.seed + number)
        label = f"imagining, round {number}"
        imagined = self._imagine(starts, config.seed + number, config.noise, config.rollout_steps, label)
        sources = [*self.expert, imagined_examples(imagined, config.discount, config.temperature)]
        self._fit(number, sources, SHARES_IMPROVEMENT, config.improvement_steps, config.improvement_rate)
        after = self._check()
        accepted = after["return"] >= before["return"]
        if not accepted:
            self.ledger.restore(self.policy)
        verdict = f"{after['return']:+.3f} after {before['return']:+.3f}"
        print(f"  {self.name}: imagined return {verdict}, {'kept' if accepted else 'round dropped'}")
        kept = after if accepted else {key: before[key] for key in after}
        self.ledger.add(self.policy, accepted=accepted, **kept)

    def _fit(
        self, number: int, sources: list[Examples], shares: tuple[float, ...], steps: int, rate: float
    ) -> None:
        seed, batch, folder = self.config.seed + number, self.config.batch, self.ledger.round_folder(number)
        batches = MixedBatches(sources, shares, self.policy.config.image_key, batch, seed)
        settings = TrainConfig(steps=steps, batch=batch, learning_rate=rate, save_every=SAVE_EVERY)
        label = f"{self.name}: {f'improving, round {number}' if number else 'cloning'}"
        train(self.policy, batches, settings, folder, label, {"request": self.ledger.request}, self.device)

    def _check(self) -> dict[str, float]:
        """Return and success imagined from fixed held-out starts, without noise."""
        starts = self.learned.first_frames("val")
        starts = starts[torch.arange(self.config.checks) % len(starts)]
        imagined = self._imagine(starts, self.config.seed, 0.0, self.learned.task.horizon, "checking")
        return {"return": imagined.mean_return, "success": imagined.success.float().mean().item()}

    def _imagine(self, starts: Tensor, seed: int, noise: float, steps: int, label: str) -> Imagined:
        env = self.learned.env(starts, action_mode="latent", decoding_steps=self.config.decoding_steps)
        with progress(f"{self.name}: {label}", len(starts) * steps, "frame") as bar:
            return imagine(env, self.policy, starts, seed, noise, steps, bar)
