"""Plots as inline SVG text, drawn by hand: no dependency, no script, readable at any size and in dark mode.

Colours are CSS classes of report.css (`physics`, `learned`, `random`, …), so that one thing has one colour
throughout the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Series:
    """One line. `style` is a colour class of report.css; `band` an optional (low, high) for each point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    dashed: bool = False
    band: Sequence[tuple[float, float]] | None = None
    marks: bool = False


@dataclass(frozen=True)
class Bar:
    """One row of `interval_chart`: a rate in 0…1 with its interval."""

    group: str
    name: str
    style: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _Axis:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover low … high."""
    span = (high - low) or abs(high) or 1.0
    raw = span / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    from_zero: bool = False,
    size: tuple[int, int] = (520, 300),
) -> str:
    """Lines over a common x axis, each named at its end. Points that aren't finite are left out."""
    width, height = size
    longest = max(len(line.name) for line in series)
    left, right, top, bottom = 46, 14 + 6.3 * longest, 26, 40
    values = [v for line in series for v in _values(line) if math.isfinite(v)] or [0.0]
    places = [x for line in series for x in line.x] or [0.0]
    marks = ticks(0.0 if from_zero else min(values), max(values))
    x_marks = list(x_ticks or (x for x in ticks(min(places), max(places)) if x <= max(places)))
    x_axis = _Axis(min(places), max(places), left, width - right)
    y_axis = _Axis(marks[0], marks[-1], height - bottom, top)
    parts = [f'<text class="axis" x="{left - 40}" y="14">{escape(y_label)}</text>']
    for mark in marks:
        y = y_axis(mark)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{left - 7}" y="{y + 4:.1f}">{mark:g}</text>')
    for mark in x_marks:
        parts.append(
            f'<text class="tick mid" x="{x_axis(mark):.1f}" y="{height - bottom + 17}">{mark:g}</text>'
        )
    middle = (left + width - right) / 2
    parts.append(f'<text class="axis mid" x="{middle:.0f}" y="{height - 6}">{escape(x_label)}</text>')
    parts += [_line(line, x_axis, y_axis) for line in series]
    parts += _end_labels(series, y_axis, width - right + 8, top, height - bottom)
    return _svg(width, height, parts)


def interval_chart(bars: Sequence[Bar], width: int = 780) -> str:
    """Rates with their intervals, 0 to 100 %, grouped under headings."""
    left, right, row, head = 190, 60, 24, 42
    axis = _Axis(0.0, 1.0, left, width - right)
    parts: list[str] = []
    y, group = 8.0, None
    for bar in bars:
        if bar.group != group:
            group = bar.group
            parts.append(f'<text class="group" x="0" y="{y + 14:.0f}">{escape(group)}</text>')
            y += head
        text = f"{bar.name}: {bar.value:.0%} (95 % interval {bar.low:.0%} to {bar.high:.0%})"
        low, value, high = axis(bar.low), axis(bar.value), axis(bar.high)
        parts += [
            f'<g class="{bar.style}"><title>{escape(text)}</title>',
            f'<text class="label end" x="{left - 14}" y="{y + 4:.0f}">{escape(bar.name)}</text>',
            f'<line class="track" x1="{left}" x2="{width - right}" y1="{y:.0f}" y2="{y:.0f}"/>',
            f'<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.0f}" y2="{y:.0f}"/>',
            f'<circle class="dot" cx="{value:.1f}" cy="{y:.0f}" r="5.5"/>',
            f'<text class="label" x="{width - right + 12}" y="{y + 4:.0f}">{bar.value:.0%}</text></g>',
        ]
        y += row
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<text class="tick mid" x="{axis(mark):.1f}" y="{y + 8:.0f}">{mark:.0%}</text>')
    return _svg(width, int(y + 16), parts)


def duration_chart(seconds: Sequence[tuple[str, float]], width: int = 780) -> str:
    """Stages as bars of a common clock, one after another."""
    left, right, row = 120, 64, 24
    total = sum(value for _, value in seconds) or 1.0
    axis = _Axis(0.0, total, left, width - right)
    parts: list[str] = []
    elapsed = 0.0
    for index, (name, value) in enumerate(seconds):
        y = 4 + row * index
        start, end = axis(elapsed), axis(elapsed + value)
        parts += [
            f'<text class="label end" x="{left - 12}" y="{y + 13}">{escape(name)}</text>',
            f'<rect class="stage" x="{start:.1f}" y="{y + 2}" width="{max(end - start, 1.5):.1f}" height="14" rx="3"/>',
            f'<text class="tick" x="{end + 7:.1f}" y="{y + 13}">{clock(value)}</text>',
        ]
        elapsed += value
    return _svg(width, row * len(seconds) + 6, parts)


def clock(seconds: float) -> str:
    """7.3 s, 2 min 05 s, 1 h 02 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, over = divmod(minutes, 60)
    return f"{hours} h {over:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _values(line: Series) -> list[float]:
    return [*line.y, *(edge for pair in line.band or () for edge in pair)]


def _line(line: Series, x_axis: _Axis, y_axis: _Axis) -> str:
    points = [
        (x_axis(x), y_axis(y))
        for x, y in zip(line.x, line.y, strict=True)
        if y is not None and math.isfinite(y)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [f'<g class="{line.style}"><title>{escape(line.name)}</title>']
    if line.band:
        edges = list(zip(line.x, line.band, strict=True))
        outline = [(x, high) for x, (_, high) in edges] + [(x, low) for x, (low, _) in reversed(edges)]
        area = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in outline)
        parts.append(f'<polygon class="band" points="{area}"/>')
    parts.append(f'<polyline class="{"line dashed" if line.dashed else "line"}" points="{path}"/>')
    if line.marks:
        parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>' for x, y in points]
    return "".join(parts) + "</g>"


def _end_labels(
    series: Sequence[Series], y_axis: _Axis, x: float, top: float, bottom: float, gap: float = 15.0
) -> list[str]:
    """Names at the ends of the lines, pushed apart where they would touch."""
    ends = []
    for line in series:
        finite = [y for y in line.y if y is not None and math.isfinite(y)]
        ends.append((y_axis(finite[-1]) if finite else bottom, line))
    ends.sort(key=lambda end: end[0])
    places: list[float] = []
    for wanted, _ in ends:
        places.append(max(wanted, places[-1] + gap) if places else max(wanted, top))
    excess = places[-1] - bottom
    if excess > 0:
        places = [place - excess for place in places]
    return [
        f'<text class="label {line.style}" x="{x:.1f}" y="{place + 4:.1f}">{escape(line.name)}</text>'
        for place, (_, line) in zip(places, ends, strict=True)
    ]


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg">\n{body}\n</svg>'
    )
