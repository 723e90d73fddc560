"""Curves as SVG text: one or several over one pair of axes, and the places on them that count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from labelmill.page.axes import Frame, round_ends, svg

__all__ = ["Curve", "Mark", "curve_chart", "key"]

Point = tuple[float, float]
_CHARACTER_PX = 5.2


@dataclass(frozen=True)
class Curve:
    """Points (x, y) from left to right. `colour` is one of the page's, 0 to 8; `dots` are drawn as such, with what they
    say when somebody points at them, escaped already, and the square root of their size in `weights`."""

    points: Sequence[Point]
    colour: int = 1
    dashed: bool = False
    dots: Sequence[tuple[float, float, str]] = ()
    radius: float = 3.5


@dataclass(frozen=True)
class Mark:
    """A vertical line at an x that matters. `words` are escaped already."""

    x: float
    words: str = ""


def curve_chart(
    curves: Sequence[Curve],
    description: str,
    *,
    x_ticks: Sequence[tuple[float, str]],
    y: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
) -> str:
    """Curves between the first and the last of `x_ticks`, over `y` or what they need. All texts are escaped already."""
    xs = [x for x, _ in x_ticks]
    values = [value for curve in curves for _, value in (*curve.points, *((x, y) for x, y, _ in curve.dots))]
    frame = Frame((min(xs), max(max(xs), min(xs) + 1e-9)), y or round_ends(min(values), max(values)))
    parts = [frame.grid(), frame.below(x_ticks)]
    parts += [_mark(frame, mark) for mark in marks]
    parts += [_line(frame, curve) for curve in curves if len(curve.points) > 1]
    parts += [_dot(frame, curve, *dot) for curve in curves for dot in (*curve.dots, *_lonely(curve))]
    return svg(parts, description)


def key(colour: int, words: str, kind: Literal["line", "dashed", "square"] = "line") -> str:
    """A curve's entry in a legend. `words` are escaped already."""
    shape = (
        f'<rect class="c{colour}" width="10" height="10"/>'
        if kind == "square"
        else f'<line class="k{colour}{" dashed" if kind == "dashed" else ""}" x1="0" x2="22" y1="5" y2="5"/>'
    )
    width = 10 if kind == "square" else 22
    return (
        f'<span class="entry"><svg class="{kind}-key" viewBox="0 0 {width} 10" aria-hidden="true">{shape}</svg>'
        f"{words}</span> "
    )


def _line(frame: Frame, curve: Curve) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.place(*point) for point in curve.points))
    return f'<polyline class="k{curve.colour}{" dashed" if curve.dashed else ""}" points="{points}"/>'


def _lonely(curve: Curve) -> list[tuple[float, float, str]]:
    """A single point makes no line, and would not be seen."""
    return [(*curve.points[0], "")] if len(curve.points) == 1 and not curve.dots else []


def _dot(frame: Frame, curve: Curve, x: float, y: float, words: str) -> str:
    across, down = frame.place(x, y)
    return (
        f'<circle class="c{curve.colour} dot" cx="{across:.1f}" cy="{down:.1f}" r="{curve.radius:g}">'
        f"<title>{words}</title></circle>"
    )


def _mark(frame: Frame, mark: Mark) -> str:
    x, _ = frame.place(mark.x, 0)
    line = f'<line class="at" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top}" y2="{frame.bottom}"/>'
    left_of_it = x + 6 + _CHARACTER_PX * len(mark.words) > frame.right
    place = f'x="{x - 5:.1f}" text-anchor="end"' if left_of_it else f'x="{x + 5:.1f}"'
    return line + (f'<text {place} y="{frame.top + 9}">{mark.words}</text>' if mark.words else "")
