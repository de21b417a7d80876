"""Small pieces of HTML: tables, figures, strips. Every text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from robosim.evaluation.pictures import animation_uri, error_frames, png_uri, side_by_side, strip

STRIP_COLUMNS = 9


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1, narrow: bool = False
) -> str:
    """A table of texts; columns from `numbers_from` on are aligned to the right."""

    def cells(tag: str, values: Sequence[str]) -> str:
        classes = ["" if i < numbers_from else ' class="n"' for i in range(len(values))]
        pairs = zip(values, classes, strict=True)
        return "<tr>" + "".join(f"<{tag}{c}>{escape(value)}</{tag}>" for value, c in pairs) + "</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    style = "scroll narrow" if narrow else "scroll"
    return (
        f'<div class="{style}"><table><thead>{cells("th", head)}</thead><tbody>{body}</tbody></table></div>'
    )


def figure(content: str, caption: str = "") -> str:
    """A chart or picture with its caption."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{content}{below}</figure>"


def fact(value: str, meaning: str) -> str:
    return f'<div class="fact"><b>{escape(value)}</b><span>{escape(meaning)}</span></div>'


def definitions(entries: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in entries) + "</dl>"


def strip_figure(true: np.ndarray, predicted: np.ndarray, caption: str, fps: int, first: str = "true") -> str:
    """True, predicted and error rows of one video [T,H,W,3], at most `STRIP_COLUMNS` frames of it."""
    columns = np.unique(np.linspace(0, len(true) - 1, STRIP_COLUMNS).round().astype(int)).tolist()
    picture = png_uri(strip([true, predicted, error_frames(predicted, true)], columns))
    names = "".join(f"<span>{escape(name)}</span>" for name in (first, "learned", "error"))
    times = "".join(f"<span>{column / fps:.1f} s</span>" for column in columns)
    inside = (
        f'<div class="strip"><div class="names">{names}</div><img alt="{escape(caption)}" src="{picture}">'
        f'<div class="times">{times}</div></div>'
    )
    return figure(inside, caption)


def film(left: np.ndarray, right: np.ndarray, caption: str, fps: int) -> str:
    """Two videos [T,H,W,3] side by side, animated."""
    video = side_by_side([left, right])
    return figure(f'<img alt="{escape(caption)}" src="{animation_uri(video, fps)}">', caption)
