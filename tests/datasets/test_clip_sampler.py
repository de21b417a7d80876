"""Batches depend on (seed, step) alone, are aligned over columns, and are uniform over clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from robosim_datasets.clip_store import ClipStore
from robosim_datasets.sampler import ClipSampler

from robosim.errors import DatasetError


@pytest.fixture
def sampler(store: ClipStore):
    def make(**options) -> ClipSampler:
        settings = {"length": 4, "batch": 8, "seed": 3, "columns": ("frames", "action", "success"), **options}
        return ClipSampler(store, settings.pop("episodes", store.select("train")), **settings)

    return make


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_batch_is_a_function_of_seed_and_step(sampler):
    one, other = sampler(), sampler()
    for step in range(20):  # another history, the same batch
        other(step)
    assert equal(one(7), other(7))
    assert not torch.equal(one(7)["start"], one(8)["start"])
    assert not torch.equal(one(7)["frames"], sampler(seed=4)(7)["frames"])


def test_a_process_makes_its_rows_alone(sampler):
    whole = sampler(motion_bias=0.5)(7)
    parts = [sampler(motion_bias=0.5)(7, rows) for rows in (slice(0, 3), slice(3, 8))]
    assert equal(whole, {name: torch.cat([part[name] for part in parts]) for name in whole})


def test_first_batches_are_what_they_always_were(sampler):
    """A run resumes after an upgrade of NumPy too: the raw Philox stream is fixed."""
    batch = sampler()(0)
    assert batch["noise_seed"][:2].tolist() == [8617230661500530277, 248870982137174813]
    assert list(zip(batch["episode"][:4].tolist(), batch["start"][:4].tolist(), strict=True)) == [
        (0, 3),
        (7, 0),
        (3, 5),
        (4, 0),
    ]


@pytest.mark.parametrize(
    ("bias", "seed", "step", "clips", "noise"),
    [
        (0.5, 11, 7, ((5, 7), (3, 7), (2, 4), (1, 2), (6, 9), (6, 11)), 8385181982349965942),
        (1.0, 2**63 + 5, 12345, ((4, 1), (4, 5), (7, 9), (7, 2), (2, 3), (6, 9)), 4034405749650928918),
    ],
)
def test_later_batches_are_what_they_always_were(sampler, bias, seed, step, clips, noise):
    batch = sampler(columns=(), batch=12, motion_bias=bias, seed=seed)(step)
    assert list(zip(batch["episode"][:6].tolist(), batch["start"][:6].tolist(), strict=True)) == list(clips)
    assert batch["noise_seed"][-1] == noise


def test_episodes_in_another_order_are_other_clips_as_they_always_were(sampler):
    batch = sampler(columns=(), batch=12, seed=5, episodes=[7, 2, 9, 0])(3)
    assert list(zip(batch["episode"][:6].tolist(), batch["start"][:6].tolist(), strict=True)) == [
        (2, 0),
        (7, 1),
        (0, 1),
        (7, 10),
        (7, 5),
        (2, 1),
    ]


def test_row_does_not_depend_on_batch_size(sampler):
    small, large = sampler(batch=1, motion_bias=0.5), sampler(batch=8, motion_bias=0.5)
    for step in range(10):
        for name, values in small(step).items():
            assert torch.equal(values[0], large(step)[name][0]), name


def test_clips_are_cut_from_the_store_and_columns_are_aligned(sampler, store):
    batch = sampler(batch=32)(0)
    assert batch["frames"].shape == (32, 4, 32, 32, 3) and batch["frames"].dtype == torch.uint8
    assert batch["action"].shape == (32, 4, 3) and batch["success"].dtype == torch.bool
    for row in range(32):
        episode, start = int(batch["episode"][row]), int(batch["start"][row])
        assert episode in store.select("train")
        assert 0 <= start <= store.episodes[episode].length - 4
        assert np.array_equal(batch["frames"][row].numpy(), store.frames(episode, start, start + 4))
        first = store.episodes[episode].start + start
        assert np.array_equal(batch["action"][row].numpy(), store.column("action")[first : first + 4])


def test_other_camera(sampler, store):
    batch = sampler(camera="side")(0)
    episode, start = int(batch["episode"][0]), int(batch["start"][0])
    expected = store.frames(episode, start, start + 4, camera="side")
    assert np.array_equal(batch["frames"][0].numpy(), expected)


def test_every_clip_is_equally_likely(sampler, store):
    """Also across episodes of unequal length, and to the last start of each."""
    clips = sampler(columns=(), batch=4096)
    counts: dict[tuple[int, int], int] = {}
    for step in range(10):
        batch = clips(step)
        for key in zip(batch["episode"].tolist(), batch["start"].tolist(), strict=True):
            counts[key] = counts.get(key, 0) + 1
    assert len(counts) == clips.num_clips == sum(store.episodes[e].length - 3 for e in store.select("train"))
    expected = 40960 / clips.num_clips
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < clips.num_clips + 4 * np.sqrt(2 * clips.num_clips)


def test_motion_bias_prefers_moving_clips(sampler, store):
    def mean_motion(bias: float) -> float:
        batch = sampler(columns=(), batch=2000, motion_bias=bias)(0)
        motion = store.column("motion")
        starts = [store.episodes[e].start for e in batch["episode"].tolist()]
        firsts = np.array(starts) + batch["start"].numpy()
        return float(np.mean([motion[first : first + 3].sum() for first in firsts]))

    still, half, full = (mean_motion(bias) for bias in (0.0, 0.5, 1.0))
    assert still * 1.03 < half < full / 1.03


def test_noise_seeds_differ_by_row_and_step(sampler):
    seeds = torch.cat([sampler()(step)["noise_seed"] for step in range(50)])
    assert len(set(seeds.tolist())) == len(seeds)
    assert (seeds >= 0).all()


def test_labels_are_not_opened_unless_asked_for(store, monkeypatch):
    asked = []
    read = ClipStore.column
    monkeypatch.setattr(ClipStore, "column", lambda self, name: asked.append(name) or read(self, name))
    ClipSampler(store, store.select(), length=4, batch=2, seed=0, motion_bias=0.5)(0)
    assert set(asked) == {"motion"}


def test_clips_longer_than_every_episode(sampler):
    with pytest.raises(DatasetError, match=r"no episode .* clips of 99 frames .* the longest has 17"):
        sampler(length=99)
    assert sampler(length=17).num_clips == 1
