"""A clip store as a source: what training reads, a mixture included, looks like any other recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from robosim.errors import DatasetError
from robosim_datasets import clip_files as files
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.sources.source import SourceEpisode, SourceInfo

LAYOUT = "clip store"


def looks_like_clips(path: Path) -> bool:
    """Whether `path` is a folder with a clip store's index beside its columns or frames (a mixture has none)."""
    path = Path(path)
    try:
        return (path / files.INDEX).is_file() and any((path / n).is_dir() for n in ("columns", "frames"))
    except (OSError, ValueError):
        return False


def open_clips(path: Path) -> StoreSource:
    """Open a clip store. Raises `DatasetError` when its index or a shard is damaged or missing."""
    return StoreSource(ClipStore(Path(path)))


class StoreSource:
    """An opened clip store. See `Source`. An episode's number is its place in the store."""

    def __init__(self, store: ClipStore) -> None:
        self.root, self._store, spec = store.path, store, store.spec
        tasks = {task.name: task.instruction for task in spec.tasks}
        # Stores of the first versions have no sentence an episode.
        self._told = [row.instruction or tasks.get(row.task, "") for row in store.episodes]
        self.info = SourceInfo(
            layout=LAYOUT,
            name=store.path.name,
            cameras={camera: (spec.size, spec.size) for camera in spec.cameras},
            fps=spec.fps,
            state_names=spec.state_columns,
            action_names=spec.action_columns,
            action_kind=spec.action_kind,
            robot=spec.robot.name,
            episodes=len(store.episodes),
            frames=store.num_frames,
            instructions=tuple(dict.fromkeys(filter(None, self._told))),
            splits=dict(Counter(row.split for row in store.episodes)),
            spec=spec,
        )

    def read(self, episode: int) -> SourceEpisode:
        row = self._store.episodes[episode]
        # Rows of a mixture's part without commands only fill the columns.
        labels = self._store.spec.labels if row.labelled else ()

        def column(name: str) -> np.ndarray | None:
            if name not in labels:
                return None
            return self._store.column(name)[row.start : row.start + row.length]

        nothing = np.zeros((row.length, 0), np.float32)
        state, action, reward, success = map(column, ("state", "action", "reward", "success"))
        # A store's row t is what led to frame t, a source's what its action leads to.
        return SourceEpisode(
            length=row.length,
            state=nothing if state is None else state,
            action=nothing if action is None else action,
            instruction=self._told[episode],
            reward=None if reward is None else np.append(reward[1:], np.float32(0)),
            success=None if success is None else np.append(success[1:], success[-1:]),
            environment_state=column("environment_state"),
            split=row.split,
            metadata={} if row.labelled else {"labelled": False},
            row={"task": row.task, "behaviour": row.behaviour, "seed": row.seed},
        )

    def frames(self, episode: int, camera: str, chosen: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        frames = self._store.frames(episode, camera=camera)
        for number in chosen:
            if number >= len(frames):
                raise DatasetError(
                    f"{self.root} has {len(frames)} frames of episode {episode}, not frame {number}"
                )
            yield frames[number]
