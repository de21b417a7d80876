"""How like the true video a predicted one is, by horizon: PSNR, SSIM and, where it is at hand, LPIPS.

*Moving* pixels at horizon h are those where the true frame at h differs from the present one. Repeat-last copies the
background exactly, so that all pixels together say little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robosim.evaluation.measures import Measure, psnr, psnr_gain, ratio
from robosim.evaluation.stretches import Stretches
from robosim.progress import Bar
from robosim.world_model.metrics import moving_mask, unit

ALEXNET = "alexnet-owt-7be5be79.pth"
"""The file that torchvision's AlexNet weights come in."""

Curve = Callable[[int], Tensor | None]
"""Horizon → what is shown in place of the true frames then, uint8 [N,H,W,3]; None where it has nothing to show."""

Perceptual = Callable[[Tensor, Tensor], np.ndarray]
"""Two sets of frames uint8 [N,H,W,3] → distances [N]."""


def shown_by(frames: Tensor) -> Curve:
    """The curve of a video uint8 [N,F,H,W,3] whose first frame is one step after the present."""
    return lambda horizon: frames[:, horizon - 1]


def picture_measures(
    curves: Mapping[str, Curve],
    stretches: Stretches,
    horizons: Sequence[int],
    perceptual: Perceptual | None,
    bar: Bar,
) -> dict[str, Any]:
    """Measures by name, curve and horizon: `psnr_db`, `ssim`, `moving_…` of both, `lpips`, and what `gains` says.

    A horizon's figures are taken on the stretches that reach it; one that none reaches stands there empty.
    """
    names = ["psnr_db", "moving_psnr_db", "ssim", "moving_ssim", *(["lpips"] if perceptual else [])]
    measures: dict[str, Any] = {name: {curve: {} for curve in curves} for name in names}
    for curve, show in curves.items():
        for horizon in horizons:
            there = stretches.reaches(horizon)
            shown = show(horizon) if there.any() else None
            found = empty(len(stretches), names) if shown is None else compare(shown, stretches, horizon)
            if shown is not None and perceptual is not None:
                distance = np.full(len(stretches), np.nan)
                distance[there] = perceptual(shown[there], stretches.at(horizon)[there])
                found["lpips"] = Measure.of(ratio, distance, there)
            for name in names:
                measures[name][curve][str(horizon)] = found[name]
            bar.advance(1)
    return measures | {"moving_psnr_gain_db": gains(measures["moving_psnr_db"])}


def gains(psnr_db: Mapping[str, Mapping[str, Measure]]) -> dict[str, dict[str, Measure]]:
    """PSNR of what the model does minus that of a rival on the same pixels, by pair of curves and horizon: above
    repeat-last through the tokenizer, above the nearest training clip, and (negative) below the ceiling."""
    pairs = [
        (drive, rival) for drive in ("latent", "command") for rival in ("repeat_last", "nearest", "ceiling")
    ]
    return {
        f"{drive}_{rival}": {
            horizon: Measure.of(
                psnr_gain, own.parts_NP[:, 0], psnr_db[rival][horizon].parts_NP[:, 0], own.parts_NP[:, 1]
            )
            for horizon, own in psnr_db[drive].items()
        }
        for drive, rival in pairs
        if drive in psnr_db and rival in psnr_db
    }


def compare(shown: Tensor, stretches: Stretches, horizon: int) -> dict[str, Measure]:
    """PSNR and SSIM of `shown` uint8 [N,H,W,3] against the true frames at `horizon`."""
    there, true = stretches.reaches(horizon), stretches.at(horizon)
    moving = moving_mask(true, stretches.present).numpy()
    error = (unit(shown) - unit(true)).square().mean(-1).double().numpy()
    likeness = np.full(error.shape, np.nan)
    for row in np.flatnonzero(there):
        likeness[row] = ssim_map(shown[row].numpy(), true[row].numpy())
    measures = {}
    for prefix, mask in (("", np.ones_like(moving)), ("moving_", moving)):
        pixels = np.where(there, mask.sum((1, 2)).astype(float), np.nan)
        measures[f"{prefix}psnr_db"] = Measure.of(psnr, (error * mask).sum((1, 2)), pixels)
        measures[f"{prefix}ssim"] = Measure.of(ratio, (likeness * mask).sum((1, 2)), pixels)
    return measures


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM of two frames uint8 [H,W,3] around every pixel, the mean of the channels: float64 [H,W].

    Wang et al. 2004: Gaussian window of σ = 1.5 pixels, population covariance, K₁ = .01, K₂ = .03.
    """
    from skimage.metrics import structural_similarity

    found = structural_similarity(
        a, b, channel_axis=-1, full=True, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return np.asarray(found[1]).mean(-1)


def empty(rows: int, names: Sequence[str]) -> dict[str, Measure]:
    """Measures in which no stretch has a part."""
    return {name: Measure.of(ratio, np.full(rows, np.nan), np.full(rows, np.nan)) for name in names}


def perceptual_distance(device: str) -> tuple[Perceptual | None, str]:
    """LPIPS (AlexNet) where package and weights are at hand, elsewhere a sentence on why not; nothing is fetched."""
    if find_spec("lpips") is None:
        return None, "LPIPS is left out: the package lpips isn't installed (pip install lpips)"
    weights = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET
    if not weights.is_file():
        return None, f"LPIPS is left out: AlexNet's weights aren't at {weights}, and nothing is downloaded"
    import lpips  # pyright: ignore[reportMissingImports]

    network = lpips.LPIPS(net="alex", verbose=False).to(device).eval()

    @torch.no_grad()
    def distance(a: Tensor, b: Tensor) -> np.ndarray:
        first, second = (unit(frames).movedim(-1, 1).to(device) * 2 - 1 for frames in (a, b))
        return network(first, second).flatten().cpu().numpy()

    return distance, ""
