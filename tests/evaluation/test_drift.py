from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robosim.evaluation.drift import (
    READ,
    USABLE_DRIFT,
    Places,
    drift_measures,
    read_places,
    usable_horizon,
)
from robosim.evaluation.measures import estimate, summarise
from tests.evaluation.by_hand import noise, stretches_of


def places(*metres: list[float]) -> np.ndarray:
    """[N,F+1,3]: a place on the x axis for each frame."""
    return np.array(metres)[..., None] * np.eye(3)[0]


@pytest.fixture
def stretches():
    """Two of four frames after a context of two; the second ends after two."""
    positions = np.zeros((2, 6, 9), np.float32)
    positions[:, 1:, 0] = [0, 0.1, 0.2, 0.3, 0.4]
    positions[:, 1:, 3] = 0.5
    return stretches_of(noise(2, 6, 8, 8), 2, [6, 4], positions=positions)


def test_drift_is_the_distance_at_the_horizon_and_padding_never_counts(stretches):
    shown = places([0, 0.1, 0.22, 0.3, 0.5], [0, 0.15, 0.26, 9, 9])
    true = places([0.01] * 5, [0.01] * 5) + places([0, 0.1, 0.2, 0.3, 0.4], [0, 0.1, 0.2, 0.3, 0.4])
    there = places([0.5] * 5, [0.5] * 5)
    read = {"latent": Places(shown, there), "true": Places(true, there + 0.1 * np.eye(3)[1])}
    found = drift_measures(read, stretches, (1, 2, 4, 9), np.array([True, False]))
    figures = summarise(found, np.arange(2), 0)
    tool = figures["tool_drift_m"]
    assert [tool["latent"][h]["value"] for h in "124"] == pytest.approx([0.025, 0.04, 0.1])
    assert [tool["latent"][h]["episodes"] for h in "124"] == [2, 2, 1]
    assert tool["latent"]["9"] is None
    assert tool["true"]["2"]["value"] == pytest.approx(0.01), "the probe's own error"
    alone = figures["tool_drift_from_probe_m"]
    assert set(alone) == {"latent"}
    assert alone["latent"]["2"]["value"] == pytest.approx((0.01 + 0.05) / 2)
    assert figures["object_drift_m"]["true"]["1"] == {
        "value": pytest.approx(0.1),
        "low": None,
        "high": None,
        "episodes": 1,
    }


def test_unknown_positions_leave_what_the_probe_reads(stretches):
    stretches.positions[:] = np.nan
    read = {
        name: Places(places([0.1] * 5, [0.2] * 5), places([0.0] * 5, [0.0] * 5))
        for name in ("latent", "true")
    }
    figures = summarise(drift_measures(read, stretches, (1,), np.ones(2, bool)), np.arange(2), 0)
    assert figures["tool_drift_m"]["latent"]["1"] is None
    assert figures["tool_drift_from_probe_m"]["latent"]["1"]["value"] == 0


def test_a_rollout_is_usable_until_the_mean_drift_first_exceeds_the_limit(stretches):
    near, far = 0.5 * USABLE_DRIFT, 1.2 * USABLE_DRIFT
    true = places([0] * 5, [0] * 5)
    shown = places([0, near, far, near, near], [0, near, near, 9, 9])
    assert horizon(shown, true, stretches) == 4, "the mean of the two stays below, later one is left"
    shown = places([0, near, 3 * far, near, near], [0, near, near, 9, 9])
    assert horizon(shown, true, stretches) == 1, "what comes back later doesn't count"
    assert horizon(places([0, far, 0, 0, 0], [0, far, 0, 0, 0]), true, stretches) == 0
    assert horizon(true, true, stretches, most=3) == 3


def horizon(shown, true, stretches, most=32):
    found = estimate(usable_horizon(shown, true, stretches, most), np.arange(2), 0)
    assert found is not None
    return found["value"]


def test_every_frame_is_read_in_its_place_by_the_probe_of_its_task():
    def reads(sign):
        def read(frames):
            assert len(frames) <= READ and frames.is_contiguous()
            place = sign * frames[:, 0, 0].float()
            return SimpleNamespace(tool=place, object=-place)

        return SimpleNamespace(read=read)

    frames = noise(5, READ // 2, 4, 4)
    probes = {"reach": reads(1), "soft_push": reads(-1), "other": None}
    found = read_places(probes, frames, np.array(["reach", "soft_push", "reach", "soft_push", "reach"]))
    signs = torch.tensor([1, -1, 1, -1, 1])[:, None, None]
    assert torch.equal(torch.from_numpy(found.tool), signs * frames[:, :, 0, 0].float())
    assert np.array_equal(found.object, -found.tool)
