"""Pictures of an evaluation to look at: strips of true, predicted and error frames, and masks of the object."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robosim.evaluation.object_colours import ObjectColours
from robosim.evaluation.pictures import error_frames, strip
from robosim.evaluation.stretches import Stretches

SHOWN_FRAMES = (1, 8, 32, 100)
"""Frames after the present that a strip shows, of those that the stretch has, after the present itself."""

EXAMPLES = 3
"""Stretches in a picture."""

LEAST_SIDE = 160
"""Pixels of a frame's side in a picture, about: small frames are enlarged, each pixel as a square."""

MARGIN = 130
"""Pixels for the names at the left."""

OUTLINE = (255, 0, 255)
"""Colour of what counts as the object."""


def strips_picture(stretches: Stretches, videos: Mapping[str, Tensor], rows: np.ndarray) -> bytes:
    """A PNG of the longest stretches among `rows`, each: true, then frames and errors of every drive."""
    blocks = []
    for row in examples(stretches, rows):
        future = int(stretches.length[row]) - stretches.context
        columns = [0, *(h for h in SHOWN_FRAMES if h <= future)]
        if columns[-1] < future < SHOWN_FRAMES[-1]:
            columns.append(future)
        true = stretches.frames[row, stretches.context - 1 :].numpy()
        shown, names = [true], ["true"]
        for drive in ("latent", "command"):
            if drive in videos:
                predicted = np.concatenate([true[:1], videos[drive][row].numpy()])
                shown += [predicted, error_frames(predicted, true)]
                names += [f"{drive}-driven", "its error"]
        title = f"episode {stretches.episode[row]} from frame {stretches.start[row]}"
        heads = ["start", *(f"+{column}" for column in columns[1:])]
        blocks.append(labelled(strip(shown, columns), names, heads, title))
    return png(stacked(blocks))


def mask_picture(
    colours: ObjectColours, stretches: Stretches, videos: Mapping[str, Tensor], rows: np.ndarray
) -> bytes:
    """A PNG of true and latent-driven frames with the object's mask painted over, of a few stretches among `rows`."""
    blocks = []
    for row in examples(stretches, rows):
        future = int(stretches.length[row]) - stretches.context
        columns = [0, *(h for h in SHOWN_FRAMES if h <= future)]
        true = stretches.frames[row, stretches.context - 1 :]
        shown, names = [true.numpy(), painted(colours, true)], ["true", "its mask"]
        predicted = true.clone()
        predicted[1:] = videos["latent"][row]
        shown += [predicted.numpy(), painted(colours, predicted)]
        names += ["latent-driven", "its mask"]
        heads = ["start", *(f"+{column}" for column in columns[1:])]
        blocks.append(labelled(strip(shown, columns), names, heads, f"episode {stretches.episode[row]}"))
    return png(stacked(blocks))


def examples(stretches: Stretches, rows: np.ndarray) -> list[int]:
    """The longest stretches of `rows`; of equally long ones the first."""
    order = np.argsort(-stretches.length[rows], kind="stable")
    return rows[order[:EXAMPLES]].tolist()


def painted(colours: ObjectColours, frames: Tensor) -> np.ndarray:
    """Frames uint8 [T,H,W,3], grey and dim but for the object, which is `OUTLINE`."""
    mask = colours.mask(frames).numpy()
    grey = (frames.float().mean(-1, keepdim=True) * 0.5).expand(*frames.shape).numpy().astype(np.uint8)
    return np.where(mask[..., None], np.array(OUTLINE, np.uint8), grey)


def labelled(picture: np.ndarray, names: Sequence[str], heads: Sequence[str], title: str) -> Image.Image:
    """A strip with alpha channel, enlarged, with names of its rows, heads of its columns, and a title."""
    scale = max(1, round(LEAST_SIDE * len(heads) / picture.shape[1]))
    image = Image.fromarray(picture).resize(
        (picture.shape[1] * scale, picture.shape[0] * scale), Image.Resampling.NEAREST
    )
    canvas = Image.new("RGB", (image.width + MARGIN, image.height + 52), "white")
    canvas.paste(image, (MARGIN, 52), image)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    pen.text((8, 6), title, fill="black", font=font)
    high, wide = image.height / len(names), image.width / len(heads)
    for i, name in enumerate(names):
        pen.text((MARGIN - 10, 52 + (i + 0.5) * high), name, fill="black", font=font, anchor="rm")
    for j, head in enumerate(heads):
        pen.text((MARGIN + (j + 0.5) * wide, 42), head, fill="black", font=font, anchor="mm")
    return canvas


def stacked(blocks: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other."""
    gap = 16
    height = sum(block.height + gap for block in blocks)
    canvas = Image.new("RGB", (max(block.width for block in blocks), height), "white")
    top = 0
    for block in blocks:
        canvas.paste(block, (0, top))
        top += block.height + gap
    return canvas


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
