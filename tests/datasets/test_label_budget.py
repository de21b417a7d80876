"""Labels come in whole train episodes, within the budget, evenly by task, short ones first."""

from __future__ import annotations

import pytest
from robosim_datasets.clip_store import build_clip_store
from robosim_datasets.splits import count_transitions, label_budget

from robosim.errors import DatasetError


@pytest.fixture(scope="module")
def big_store(tmp_path_factory, spec, make_episode):
    """Forty train episodes, half of them short, and four val episodes."""
    from robosim_datasets.lerobot_io import DatasetWriter

    folder = tmp_path_factory.mktemp("budget")
    with DatasetWriter(folder / "dataset", spec, {}) as writer:
        for seed in range(44):
            length = 8 if seed % 4 < 2 else 25
            task = ("reach", "soft_push")[seed % 2]
            writer.add(make_episode(seed, length, task, split="train" if seed < 40 else "val"))
    return build_clip_store(folder / "dataset", folder / "clips", progress=False)


def test_budget_is_kept_and_used(big_store):
    for limit in (10, 50, 200):
        chosen = label_budget(big_store, limit)
        used = count_transitions(big_store, chosen)
        assert limit - 7 < used <= limit
        assert used == sum(len(big_store.frames(episode)) - 1 for episode in chosen)
        assert set(chosen) <= set(big_store.select("train"))
        assert chosen == sorted(set(chosen))


def test_tasks_share_evenly(big_store):
    chosen = label_budget(big_store, 200)
    used = [count_transitions(big_store, [e for e in chosen if e % 2 == task]) for task in (0, 1)]
    assert abs(used[0] - used[1]) <= 24
    only = label_budget(big_store, 200, tasks=["soft_push"])
    assert all(big_store.episodes[e].task == "soft_push" for e in only)


def test_short_episodes_come_first(big_store):
    chosen = label_budget(big_store, 56)
    assert [big_store.episodes[e].length for e in chosen] == [8] * 8


def test_seed_decides(big_store):
    assert label_budget(big_store, 100, seed=1) == label_budget(big_store, 100, seed=1)
    assert len({tuple(label_budget(big_store, 100, seed=seed)) for seed in range(5)}) > 2


def test_impossible_budgets(big_store):
    with pytest.raises(DatasetError, match=r"has at most 5 transitions \(the shortest of all has 7\)"):
        label_budget(big_store, 5)
    with pytest.raises(ValueError, match="unknown task 'fly'"):
        label_budget(big_store, 200, tasks=["fly"])
