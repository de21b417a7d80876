"""`robosim ship`: a run's simulator, small and documented enough to come with the package.

<out>/tokenizer/ latent_action/ dynamics/ adapter/ spec.json starts.npz     a saved simulator, weights in bfloat16
<out>/probe_frames.npz                                                      held-out pairs to check it by
<out>/card.json                                                             how it was made and what it does
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.folders import StagedFolder

from robosim.checkpoint import atomic_write_json
from robosim.config import RunOptions, compose
from robosim.errors import CheckpointError, ConfigError, OutputError
from robosim.evaluation.card import WEIGHTS, files_of, make_card
from robosim.evaluation.summary import STAGES
from robosim.shipped import CARD, SHIPPED
from robosim.simulator import Simulator, load
from robosim.simulator.probe_frames import SEED, ProbeFrames, one_step_psnr
from robosim.simulator.run_folder import check_parts, write_parts
from robosim.training.stages import held_out_places, read_clips

PAIRS = 8
"""Held-out pairs of frames that go with the simulator."""

MEGABYTE = 1_000_000


@dataclass
class ShipConfig(RunOptions):
    """What is shipped, and how large it may be."""

    run: str = ""  # the folder; takes the place of RunOptions.run, since `out` is the new folder here
    name: str | None = None
    starts: int = 32
    """Held-out first frames a task, at most."""
    most_mb: float = 25.0
    """Largest size of the weights, in millions of bytes."""
    limits: tuple[str, ...] = ()
    """Sentences on what the simulator can't do."""

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("run is empty; name the run folder whose simulator is shipped: run=runs/NAME")
        if self.name is not None and not re.fullmatch(r"[\w-][\w.-]*", self.name):
            raise ConfigError(f"name={self.name!r} can't be a folder's name; use letters, digits and _ . -")
        if self.starts < 1 or not self.most_mb > 0:
            raise ConfigError(
                f"starts must be 1 or more and most_mb above 0, not {self.starts} and {self.most_mb}"
            )


def ship_command(command: str, overrides: Sequence[str]) -> None:
    """Ship a run, and say what was made of it."""
    config = compose(command, ShipConfig, overrides)
    run = Path(config.run).expanduser()
    out = Path(config.out or f"runs/shipped-{run.resolve().name}").expanduser()
    card = ship(run, out, config)
    check = card["check"]
    print(
        f"  one step on {check['pairs']} held-out pairs: {check['one_step_psnr_db']:.2f} dB as shipped, "
        f"{check['float32_one_step_psnr_db']:.2f} dB as trained"
    )
    made = {"data": card["data"]} | card["training"]
    unknown = [
        stage
        for stage, of in made.items()
        if of["config"] is None and (out / STAGES.get(stage, ".")).is_dir()
    ]
    if unknown:
        print(
            f"  the run says nothing of how these were made: {', '.join(unknown)}; they are null on the card"
        )
    if not card["limits"]:
        print('  the card names no limits; limits=["…"] says what the simulator can\'t do')
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / MEGABYTE
    weights = card["weight_bytes"] / MEGABYTE
    print(
        f"made {out}: {len(card['files']) + 1} files, {size:.2f} MB, {weights:.2f} of them weights, described in "
        f"{out / CARD}"
    )
    place = f'; moved to {SHIPPED / card["name"]} it is robosim.load("{card["name"]}")'
    print(f"next: robosim play run={out}{place}")


def ship(run: Path, out: Path, config: ShipConfig) -> dict:
    """Write `out` whole or not at all; returns its card.

    Raises `CheckpointError` where `run` is no run folder with its video, or its figures are of other weights;
    `OutputError` where `out` exists already or its weights would be larger than `most_mb`.
    """
    check_parts(run)
    if not (run / "clips").is_dir():
        raise CheckpointError(
            f"{run} has no clips/: a saved simulator can't be shipped again; name the run that it was made from"
        )
    # On the processor, where everyone can repeat the figure.
    trained = load(run, device="cpu")
    clips = ClipStore(run / "clips")
    name = config.name or out.resolve().name
    starts = first_frames(clips, config.starts)
    kept = Simulator(
        trained.world, trained.spec, trained.bundle, None, starts, name=name, renderer=trained.renderer
    )
    staged = StagedFolder(out, marker=CARD)
    try:
        write_parts(kept, staged.path, "bfloat16")
        shipped = load(staged.path, device="cpu")
        clips_P2 = read_clips(clips, held_out_places(clips, 2, PAIRS), 2).numpy()
        pairs = ProbeFrames.of_clips(shipped.world, clips_P2)
        pairs.write(staged.path)
        before = one_step_psnr(trained.world, ProbeFrames.of_clips(trained.world, clips_P2))
        check = {
            "pairs": len(clips_P2),
            "seed": SEED,
            **one_step_psnr(shipped.world, pairs),
            **{f"float32_{key}": value for key, value in before.items()},
        }
        card = make_card(run, kept, clips, "bfloat16", check, config.limits) | files_of(staged.path)
        atomic_write_json(staged.path / CARD, card)
        check_size(staged.path, config.most_mb)
        staged.commit()
    except BaseException:
        staged.abort()
        raise
    return card


def first_frames(clips: ClipStore, most: int) -> np.ndarray:
    """The first frames of up to `most` held-out episodes of each task, uint8 [E, S, S, 3]."""
    episodes = [
        episode for task in clips.spec.tasks for episode in clips.select(split="val", task=task.name)[:most]
    ]
    if not episodes:
        raise CheckpointError(
            f"{clips.path} has no held-out episode to start from; collect or import with val_fraction > 0"
        )
    return np.concatenate([clips.frames(episode, 0, 1) for episode in episodes])


def check_size(folder: Path, most_mb: float) -> None:
    """Raise `OutputError` where the weights together are larger than `most_mb` millions of bytes."""
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob(WEIGHTS)}
    total = sum(sizes.values())
    if total > most_mb * MEGABYTE:
        largest = max(sizes, key=lambda path: sizes[path])
        raise OutputError(
            f"the weights take {total / MEGABYTE:.2f} MB, more than most_mb={most_mb:g}, of which {largest} takes "
            f"{sizes[largest] / MEGABYTE:.2f} MB; nothing was written. Ship a smaller model="
        )
