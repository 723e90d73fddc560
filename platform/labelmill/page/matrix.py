"""A table of shades as SVG text: which labels are taken for which, which come together."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from labelmill.page.axes import svg

__all__ = ["Shade", "matrix"]

_CELL, _CHARACTER, _MAX_CHARACTERS = 30.0, 5.6, 16
_MOST_WITH_TEXT = 16


@dataclass(frozen=True)
class Shade:
    """A cell: how strong its colour is, 0 to 1, which of the page's it has, the figure in it, and what it says when
    somebody points at it. Texts are escaped already."""

    share: float
    text: str
    words: str
    colour: int = 1


def matrix(
    rows: Sequence[Sequence[Shade]], names: Sequence[str], description: str, *, row_word: str, column_word: str
) -> str:
    """Rows and columns have the same names. Figures stand in the cells where there are at most 16 columns. `names` are
    escaped here, the other texts already."""
    longest = _CHARACTER * max(min(len(name), _MAX_CHARACTERS) for name in names)
    left, top, size = 26 + longest, 24 + 0.8 * longest, _CELL * len(names)
    parts = [
        f'<text class="axis" x="{left + size / 2:.1f}" y="10" text-anchor="middle">{column_word}</text>',
        f'<text class="axis" transform="translate(10 {top + size / 2:.1f}) rotate(-90)" text-anchor="middle">'
        f"{row_word}</text>",
    ]
    for index, name in enumerate(names):
        text, middle = _short(name), (index + 0.5) * _CELL
        parts.append(f'<text x="{left - 6:.1f}" y="{top + middle + 3.5:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<text transform="translate({left + middle + 2:.1f} {top - 6:.1f}) rotate(-50)">{text}</text>')
    for row, shades in enumerate(rows):
        for column, shade in enumerate(shades):
            parts.append(_cell(shade, left + column * _CELL, top + row * _CELL, len(names) <= _MOST_WITH_TEXT))
    width = left + size + 0.6 * _CHARACTER * min(len(names[-1]), _MAX_CHARACTERS)
    look = "small" if len(names) <= 6 else "middle" if len(names) <= 12 else "large"
    drawing = svg(parts, description, width=width, height=top + size + 2, look=f"matrix {look}")
    return f'<div class="scroll">{drawing}</div>'


def _cell(shade: Shade, left: float, top: float, with_text: bool) -> str:
    text = ""
    if with_text and shade.text:
        look = ' class="on"' if shade.share > 0.55 else ""
        x, y = left + _CELL / 2, top + _CELL / 2 + 3.5
        text = f'<text{look} x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{shade.text}</text>'
    place = f'x="{left + 1:.1f}" y="{top + 1:.1f}" width="{_CELL - 2:g}" height="{_CELL - 2:g}" rx="3"'
    return (
        f'<g><title>{shade.words}</title><rect class="cell" {place}/>'
        f'<rect class="c{shade.colour}" fill-opacity="{shade.share:.3f}" {place}/>{text}</g>'
    )


def _short(name: str) -> str:
    return escape(name if len(name) <= _MAX_CHARACTERS else f"{name[: _MAX_CHARACTERS - 1]}…")
