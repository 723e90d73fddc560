"""Bars as SVG text, to stand in a page: they scale with their column and take their colours from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from labelmill.page.axes import Frame, round_ends, svg

__all__ = ["Bar", "bar_chart", "row_bar", "share_bar"]


@dataclass(frozen=True)
class Bar:
    """One bar: its height, and what it says when somebody points at it. `words` are escaped already."""

    value: float
    words: str


def bar_chart(bars: Sequence[Bar], ticks: Sequence[tuple[float, str]], description: str) -> str:
    """Bars side by side, from zero. `ticks` are (place, text) below them, the place in bars from the left edge; their
    texts and `description` are escaped already."""
    frame = Frame((0.0, float(max(1, len(bars)))), round_ends(0.0, max([bar.value for bar in bars], default=0.0)))
    step = (frame.right - frame.left) / max(1, len(bars))
    gap = min(2.0, step / 5)
    parts = [frame.grid(), frame.below(ticks)]
    for index, bar in enumerate(bars):
        x, y = frame.place(index, bar.value)
        parts.append(
            f'<rect class="bar" x="{x + gap / 2:.1f}" y="{y:.1f}" '
            f'width="{step - gap:.1f}" height="{frame.bottom - y:.1f}"><title>{bar.words}</title></rect>'
        )
    return svg(parts, description)


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


def row_bar(share: float, between: Sequence[float] | None = None) -> str:
    """A bar for a table's cell, as long as its share of 1. `between` are the ends of its interval, drawn over it."""
    whisker = ""
    if between:
        low, high = (100 * min(max(end, 0.0), 1.0) for end in between)
        whisker = f'<rect class="whisker" x="{low:.2f}" y="3" width="{high - low:.2f}" height="2"/>'
    return (
        '<svg class="row" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" width="100" height="8"/><rect class="bar" width="{share * 100:.2f}" height="8"/>'
        f"{whisker}</svg>"
    )
