"""Which episodes a stage may see, and which few of them come with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robosim.errors import DatasetError
from robosim.spec import EnvSpec
from robosim_datasets.clip_files import read_index
from robosim_datasets.clip_store import ClipStore, has_commands


def label_budget(
    store: ClipStore, limit: int = 200, tasks: Sequence[str] | None = None, seed: int = 0
) -> list[int]:
    """Whole labelled train episodes with at most `limit` transitions together, `length − 1` in each.

    The tasks get equal shares, as nearly as whole episodes allow. Many short episodes cover more of the
    workspace than few long ones, so short ones come first, from a random half of the candidates: that `seed`
    decides which. Returns sorted positions in `store.episodes`.
    """
    labelled = [store.episodes[episode] for episode in store.select(labelled=True)]
    if all(row.split != "train" for row in labelled):
        raise DatasetError(
            f"no train episode of {store.path} has commands; import or collect some of the arm again, and mix again"
        )
    tasks = [store.spec.task(name).name for name in tasks or dict.fromkeys(row.task for row in labelled)]
    generator = np.random.default_rng(seed)
    queues = {
        task: _short_first(store, store.select("train", task, labelled=True), generator) for task in tasks
    }
    chosen: list[int] = []
    used = dict.fromkeys(tasks, 0)
    while any(queues.values()):
        task = min((task for task in tasks if queues[task]), key=lambda task: used[task])
        episode = queues[task].pop(0)
        transitions = store.episodes[episode].length - 1
        if sum(used.values()) + transitions <= limit:
            chosen.append(episode)
            used[task] += transitions
    if not chosen:
        shortest = min(row.length for row in labelled if row.split == "train") - 1
        raise DatasetError(
            f"no train episode of {store.path} for {', '.join(tasks)} has at most {limit} transitions (the shortest "
            f"of all has {shortest}); raise the number of labels or take shorter episodes"
        )
    return sorted(chosen)


def held_out_labelled(store: ClipStore) -> list[int]:
    """The val episodes on which an adapter is measured. Raises `DatasetError` where none has labels."""
    if held_out := store.select(split="val", labelled=True):
        return held_out
    whose = " with commands" if store.select(split="val") else ""
    again = ", and mix again" if store.parts else ""
    raise DatasetError(
        f"{store.path} has no val episode{whose} to measure the adapter on; collect or import those with commands "
        f"again, with val_fraction above 0{again}"
    )


def check_commands(store: ClipStore, labels: int) -> None:
    """Raise `DatasetError` where the video has no commands, or such of several meanings: an adapter needs them, the
    world model doesn't."""
    if has_commands(store.spec):
        return
    run = store.path.parent
    play = f"the simulator works without and is played by its latent actions: robosim play run={run}"
    indices = {part.name: read_index(store.path / part.path) for part in store.parts}
    differing = [name for name, index in indices.items() if has_commands(EnvSpec.from_json(index["spec"]))]
    if differing:
        raise DatasetError(
            f"the commands of {', '.join(differing)} in {run} don't mean the same (arm, kind of command or names of "
            "states differ), so there is no adapter to fit: one adapter can't drive several arms; mix again with data= "
            f"of parts whose commands mean the same, beside any that have none; {play}"
        )
    raise DatasetError(
        f"the video in {run} has no commands, so there is no adapter to fit: import or collect some episodes of the "
        f"arm with state and action, of which up to {labels} transitions are read, and train on both together "
        f"(data=[RUN,RUN]); {play}"
    )


def check_positions(store: ClipStore, command: str) -> None:
    """Raise `DatasetError` where no position of tool, object and goal is known, so that no task can be judged."""
    if "environment_state" not in store.spec.labels:
        run = store.path.parent
        raise DatasetError(
            f"{command} needs a task whose positions are known (tool, object, goal), as robosim collect "
            f"records them, and the video in {run} has none; its simulator is played with: robosim play run={run}"
        )


def count_transitions(store: ClipStore, episodes: Sequence[int]) -> int:
    """Transitions (frame, action, next frame) in whole episodes."""
    return sum(store.episodes[episode].length - 1 for episode in episodes)


def _short_first(store: ClipStore, episodes: list[int], generator: np.random.Generator) -> list[int]:
    """A random half sorted by length, then the other half sorted by length."""
    shuffled = [episodes[i] for i in generator.permutation(len(episodes))]
    half = (len(shuffled) + 1) // 2

    def length(episode: int) -> int:
        return store.episodes[episode].length

    return sorted(shuffled[:half], key=length) + sorted(shuffled[half:], key=length)
