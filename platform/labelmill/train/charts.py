"""Line charts as SVG text, to stand in a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Line", "line_chart"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 200, 46, 10, 12, 26


@dataclass(frozen=True)
class Line:
    """Points (epoch, value), from left to right. `mark` is the x of the one that counts."""

    points: Sequence[tuple[float, float]]
    mark: float | None = None


def line_chart(line: Line, description: str) -> str:
    """An <svg> that scales with its column and takes its colours from the page. `description` is escaped already."""
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    last_epoch = max(1.0, *xs)
    low, high = _bounds(ys)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + x / last_epoch * (_WIDTH - _LEFT - _RIGHT),
            _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_grid(low, high, last_epoch)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.points))
    parts.append(f'<polyline class="line" points="{path}"/>')
    dots = line.points if len(line.points) == 1 else [point for point in line.points if point[0] == line.mark]
    parts += [f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in (at(*point) for point in dots)]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{description}">'
        f"<title>{description}</title>{''.join(parts)}</svg>"
    )


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < high / 2 else low - margin), high + margin


def _grid(low: float, high: float, last_epoch: float) -> str:
    parts = []
    for part in range(5):
        y = _TOP + part / 4 * (_HEIGHT - _TOP - _BOTTOM)
        value = high - part / 4 * (high - low)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_tick(value, high - low)}</text>')
    for epoch in sorted({0, round(last_epoch / 2), round(last_epoch)}):
        x = _LEFT + epoch / last_epoch * (_WIDTH - _LEFT - _RIGHT)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{epoch}</text>')
    return "".join(parts)


def _tick(value: float, span: float) -> str:
    """As many digits as it takes to tell one grid line from the next, and short enough for the margin."""
    if span < 0.02 and abs(value) < 0.1:
        return f"{value:.1e}".replace("e-0", "e-") if abs(value) > span / 100 else "0"
    decimals = max(0, 1 - math.floor(math.log10(span / 4)))
    return f"{value:.{min(decimals, 5)}f}"
