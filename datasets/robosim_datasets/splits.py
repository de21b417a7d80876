"""Which episodes a stage may see, and which few of them come with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robosim.errors import DatasetError
from robosim_datasets.clip_store import ClipStore


def label_budget(
    store: ClipStore, limit: int = 200, tasks: Sequence[str] | None = None, seed: int = 0
) -> list[int]:
    """Whole train episodes with at most `limit` labelled transitions together, `length − 1` in each.

    The tasks get equal shares, as nearly as whole episodes allow. Many short episodes cover more of the
    workspace than few long ones, so short ones come first, from a random half of the candidates: that `seed`
    decides which. Returns sorted positions in `store.episodes`.
    """
    tasks = [
        store.spec.task(name).name for name in tasks or dict.fromkeys(row.task for row in store.episodes)
    ]
    generator = np.random.default_rng(seed)
    queues = {task: _short_first(store, store.select("train", task), generator) for task in tasks}
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
        raise DatasetError(
            f"no train episode of {store.path} for {', '.join(tasks)} has at most {limit} transitions; raise the "
            "number of labels or collect shorter episodes"
        )
    return sorted(chosen)


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
