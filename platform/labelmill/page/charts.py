"""Charts as SVG text, to stand in a page: they scale with their column and take their colours from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Bar", "Line", "bar_chart", "line_chart", "row_bar", "share_bar"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 200, 46, 10, 12, 26
_INNER, _DEEP = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM


@dataclass(frozen=True)
class Line:
    """Points (epoch, value), from left to right. `mark` is the x of the one that counts."""

    points: Sequence[tuple[float, float]]
    mark: float | None = None


@dataclass(frozen=True)
class Bar:
    """One bar: its height, and what it says when somebody points at it. `words` are escaped already."""

    value: float
    words: str


def line_chart(line: Line, description: str) -> str:
    """A curve over epochs. `description` is escaped already."""
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    last_epoch = max(1.0, *xs)
    low, high = _bounds(ys)

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / last_epoch * _INNER, _TOP + (high - y) / (high - low) * _DEEP

    epochs = sorted({0, round(last_epoch / 2), round(last_epoch)})
    parts = [_grid(low, high), _below([(epoch / last_epoch, str(epoch)) for epoch in epochs])]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.points))
    parts.append(f'<polyline class="line" points="{path}"/>')
    dots = line.points if len(line.points) == 1 else [point for point in line.points if point[0] == line.mark]
    parts += [f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in (at(*point) for point in dots)]
    return _svg(parts, description)


def bar_chart(bars: Sequence[Bar], ticks: Sequence[tuple[float, str]], description: str) -> str:
    """Bars side by side, from zero. `ticks` are (place, text) below them, the place in bars from the left edge; their
    texts and `description` are escaped already."""
    high = _round_top(max([bar.value for bar in bars], default=0.0))
    step = _INNER / max(1, len(bars))
    gap = min(2.0, step / 5)
    parts = [_grid(0.0, high), _below([(place / max(1, len(bars)), text) for place, text in ticks])]
    for index, bar in enumerate(bars):
        deep = bar.value / high * _DEEP
        parts.append(
            f'<rect class="bar" x="{_LEFT + index * step + gap / 2:.1f}" y="{_TOP + _DEEP - deep:.1f}" '
            f'width="{step - gap:.1f}" height="{deep:.1f}"><title>{bar.words}</title></rect>'
        )
    return _svg(parts, description)


def share_bar(shares: Sequence[tuple[str, float]], description: str) -> str:
    """One bar cut into (class, share of 1) from left to right. `description` is escaped already."""
    parts, at = [], 0.0
    for name, share in shares:
        parts.append(f'<rect class="{name}" x="{at * 1000:.1f}" y="0" width="{share * 1000:.1f}" height="40"/>')
        at += share
    return (
        f'<svg class="share" viewBox="0 0 1000 40" preserveAspectRatio="none" role="img" aria-label="{description}">'
        f"<title>{description}</title>{''.join(parts)}</svg>"
    )


def row_bar(share: float) -> str:
    """A bar for a table's cell, as long as its share of 1."""
    return (
        '<svg class="row" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="bar" width="{share * 100:.2f}" height="8"/></svg>'
    )


def _svg(parts: Sequence[str], description: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{description}">'
        f"<title>{description}</title>{''.join(parts)}</svg>"
    )


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < high / 2 else low - margin), high + margin


def _round_top(value: float) -> float:
    """The least end of an axis that holds `value` and whose quarters are round numbers."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value / 4))
    return next(4 * step * power for step in (1, 2, 2.5, 5, 10) if 4 * step * power >= value * 0.999)


def _grid(low: float, high: float) -> str:
    parts = []
    for part in range(5):
        y = _TOP + part / 4 * _DEEP
        value = high - part / 4 * (high - low)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_tick(value, high - low)}</text>')
    return "".join(parts)


def _below(ticks: Sequence[tuple[float, str]]) -> str:
    """Texts below the chart, each at its share of the width."""
    return "".join(
        f'<text x="{_LEFT + share * _INNER:.1f}" y="{_HEIGHT - 8}" text-anchor="{_anchor(share, text)}">{text}</text>'
        for share, text in ticks
    )


def _anchor(share: float, text: str) -> str:
    """A long text at the right edge would be cut off."""
    return "end" if share > 0.95 and len(text) > 3 else "middle"


def _tick(value: float, span: float) -> str:
    """As many digits as it takes to tell one grid line from the next, and short enough for the margin."""
    if span < 0.02 and abs(value) < 0.1:
        return f"{value:.1e}".replace("e-0", "e-") if abs(value) > span / 100 else "0"
    if span >= 10_000:
        return f"{value / 1000:,.0f}k" if span < 10_000_000 else f"{value / 1_000_000:,.0f}M"
    decimals = max(0, 1 - math.floor(math.log10(span / 4)))
    return f"{value:.{min(decimals, 5)}f}"
