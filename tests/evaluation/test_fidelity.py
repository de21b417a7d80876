import math

import numpy as np
import pytest
import torch

from robosim.evaluation import fidelity
from robosim.evaluation.fidelity import gains, perceptual_distance, picture_measures, shown_by, ssim_map
from robosim.evaluation.measures import summarise
from tests.evaluation.by_hand import NoBar, noise, stretches_of

SIZE = 16


def figures(curves, stretches, horizons=(1, 2), perceptual=None):
    measures = picture_measures(curves, stretches, horizons, perceptual, NoBar())
    return summarise(measures, np.arange(len(stretches)), 0)


def walking(count: int = 3, time: int = 5) -> torch.Tensor:
    """A bright square that walks over a dark floor, two pixels a frame."""
    frames = torch.full((count, time, SIZE, SIZE, 3), 40, dtype=torch.uint8)
    for row in range(count):
        for t in range(time):
            frames[row, t, 4 + row : 8 + row, 2 * t + 1 : 2 * t + 5] = 200
    return frames


def test_a_perfect_prediction_and_a_known_error():
    frames = walking()
    off = (frames[:, 1:].int() + 10).to(torch.uint8)
    found = figures({"perfect": shown_by(frames[:, 1:]), "off": shown_by(off)}, stretches_of(frames))
    for name in ("psnr_db", "moving_psnr_db"):
        assert found[name]["perfect"]["2"]["value"] == pytest.approx(100)
        assert found[name]["off"]["2"]["value"] == pytest.approx(-20 * math.log10(10 / 255), abs=1e-4)
    assert found["ssim"]["perfect"]["1"]["value"] == pytest.approx(1)
    assert found["moving_ssim"]["perfect"]["1"]["value"] == pytest.approx(1)
    assert found["ssim"]["off"]["1"]["value"] < 0.99


def test_a_video_that_is_one_frame_late_is_found_out():
    frames = walking()
    found = figures(
        {"right": shown_by(frames[:, 1:]), "late": shown_by(frames[:, :-1])}, stretches_of(frames)
    )
    assert found["moving_psnr_db"]["right"]["1"]["value"] == pytest.approx(100)
    assert found["moving_psnr_db"]["late"]["1"]["value"] < 10


def test_horizons_count_from_the_last_context_frame():
    frames = walking()
    found = figures({"right": shown_by(frames[:, 3:])}, stretches_of(frames, context=3))
    assert found["psnr_db"]["right"]["2"]["value"] == pytest.approx(100)


def test_only_pixels_that_differ_from_the_present_are_moving():
    frames = walking(1, 2)
    background, square = frames[:, 1:].clone(), frames[:, 1:].clone()
    background[:, :, -1] = 255
    square[0, 0, 4:8, 3:7] = 190
    found = figures({"a": shown_by(background), "b": shown_by(square)}, stretches_of(frames), (1,))
    assert found["moving_psnr_db"]["a"]["1"]["value"] == pytest.approx(100)
    assert found["psnr_db"]["a"]["1"]["value"] < 15
    # Half of the moving pixels, 4 × 2 where it comes and 4 × 2 where it goes, is off by 10.
    assert found["moving_psnr_db"]["b"]["1"]["value"] == pytest.approx(
        -10 * math.log10(0.5 * (10 / 255) ** 2), abs=1e-4
    )


def test_padding_never_counts():
    frames, lengths = walking(2, 5), [5, 3]
    spoilt, shown = frames.clone(), frames[:, 1:].clone()
    spoilt[1, 3:], shown[1, 2:] = 0, 255
    clean = figures({"a": shown_by(frames[:, 1:])}, stretches_of(frames, length=lengths), (1, 2, 3, 4))
    dirty = figures({"a": shown_by(shown)}, stretches_of(spoilt, length=lengths), (1, 2, 3, 4))
    assert clean == dirty
    assert [clean["ssim"]["a"][h]["episodes"] for h in "1234"] == [2, 2, 1, 1]


def test_a_horizon_that_nothing_reaches_stands_there_empty():
    found = figures(
        {"a": shown_by(walking()[:, 1:]), "none": lambda horizon: None}, stretches_of(walking()), (1, 9)
    )
    assert found["psnr_db"]["a"]["9"] is None and found["ssim"]["a"]["9"] is None
    assert found["psnr_db"]["none"]["1"] is None


def test_ssim_of_flat_frames_is_the_formulas():
    a, b = (np.full((SIZE, SIZE, 3), value, np.uint8) for value in (100, 150))
    constant = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + constant) / (100**2 + 150**2 + constant)
    assert ssim_map(a, b) == pytest.approx(np.full((SIZE, SIZE), expected))


def test_gains_are_differences_on_the_same_pixels():
    frames = walking()
    curves = {
        name: shown_by(noise(3, 4, SIZE, SIZE, seed=i)) for i, name in enumerate(("latent", "repeat_last"))
    }
    curves["ceiling"] = shown_by(frames[:, 1:])
    found = figures(curves, stretches_of(frames))
    psnr = {name: found["moving_psnr_db"][name]["2"]["value"] for name in curves}
    gain = found["moving_psnr_gain_db"]
    assert set(gain) == {"latent_repeat_last", "latent_ceiling"}
    assert gain["latent_repeat_last"]["2"]["value"] == pytest.approx(psnr["latent"] - psnr["repeat_last"])
    assert gain["latent_ceiling"]["2"]["value"] == pytest.approx(psnr["latent"] - 100)
    assert gains({}) == {}


def test_a_perceptual_distance_sees_only_stretches_that_are_so_long():
    seen = []

    def distance(shown: torch.Tensor, true: torch.Tensor) -> np.ndarray:
        seen.append((len(shown), torch.equal(shown, true)))
        return np.full(len(shown), 0.25)

    frames = walking(2, 3)
    stretches = stretches_of(frames, length=[3, 2])
    found = figures({"a": shown_by(frames[:, 1:])}, stretches, (1, 2), distance)
    assert seen == [(2, True), (1, True)]
    assert found["lpips"]["a"]["2"]["value"] == 0.25 and found["lpips"]["a"]["2"]["episodes"] == 1


def test_without_the_package_or_its_weights_lpips_is_left_out_in_words(monkeypatch, tmp_path):
    monkeypatch.setattr(fidelity, "find_spec", lambda name: None)
    assert perceptual_distance("cpu") == (
        None,
        "LPIPS is left out: the package lpips isn't installed (pip install lpips)",
    )
    monkeypatch.setattr(fidelity, "find_spec", lambda name: object())
    monkeypatch.setattr(fidelity.torch.hub, "get_dir", lambda: str(tmp_path))
    distance, why = perceptual_distance("cpu")
    assert distance is None and f"aren't at {tmp_path}" in why and "nothing is downloaded" in why
