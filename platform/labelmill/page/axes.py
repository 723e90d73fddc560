"""The frame that charts share: a grid, ticks that are round or tell their lines apart, and the SVG around it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Frame", "round_ends", "svg"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 200, 46, 10, 12, 26
_INNER, _DEEP = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM


@dataclass(frozen=True)
class Frame:
    """From values to places in a drawing of 360 x 200, whose left and lower edges hold the ticks."""

    x: tuple[float, float]
    y: tuple[float, float]

    left, right, top, bottom = float(_LEFT), float(_LEFT + _INNER), float(_TOP), float(_TOP + _DEEP)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies; one beyond the frame lies on its edge."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return _LEFT + min(max(across, 0.0), 1.0) * _INNER, _TOP + (1 - min(max(up, 0.0), 1.0)) * _DEEP

    def grid(self, texts: Sequence[str] | None = None) -> str:
        """Five lines with what they stand for; `texts`, from the top down and escaped already, where figures do not."""
        low, high = self.y
        parts = []
        for part in range(5):
            y = _TOP + part / 4 * _DEEP
            text = texts[part] if texts else _tick(high - part / 4 * (high - low), high - low)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
        return "".join(parts)

    def below(self, ticks: Sequence[tuple[float, str]]) -> str:
        """Texts below the chart, each at its x; escaped already."""
        return "".join(
            f'<text x="{self.place(x, self.y[0])[0]:.1f}" y="{_HEIGHT - 8}" '
            f'text-anchor="{self._anchor(x, text)}">{text}</text>'
            for x, text in ticks
        )

    def _anchor(self, x: float, text: str) -> str:
        """A long text at the right edge would be cut off."""
        return "end" if self.place(x, 0)[0] > _LEFT + 0.95 * _INNER and len(text) > 3 else "middle"


def round_ends(low: float, high: float) -> tuple[float, float]:
    """The closest ends of an axis around two values whose quarters are round numbers; from zero where that is near."""
    if low == high:
        low, high = low - abs(low) / 10, high + (abs(high) / 10 or 1.0)
    low = 0.0 if 0 <= low < high / 2 else low
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    for step in (power * multiple for multiple in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20)):
        start = math.floor(low / step + 1e-9) * step
        if start + 4 * step >= high - 1e-9 * step:
            return start, start + 4 * step
    raise AssertionError(f"no axis from {low} to {high}")


def svg(
    parts: Sequence[str], description: str, *, width: float = _WIDTH, height: float = _HEIGHT, look: str = ""
) -> str:
    """The drawing, which takes the width of its column. `description` is escaped already."""
    look = f' class="{look}"' if look else ""
    return (
        f'<svg{look} viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{description}">'
        f"<title>{description}</title>{''.join(parts)}</svg>"
    )


def _tick(value: float, span: float) -> str:
    """As many digits as it takes to tell one grid line from the next, and short enough for the margin."""
    if span < 0.02 and abs(value) < 0.1:
        return f"{value:.1e}".replace("e-0", "e-") if abs(value) > span / 100 else "0"
    if span >= 10_000:
        return f"{value / 1000:,.0f}k" if span < 10_000_000 else f"{value / 1_000_000:,.0f}M"
    decimals = max(0, 1 - math.floor(math.log10(span / 4)))
    return f"{value:.{min(decimals, 5)}f}"
