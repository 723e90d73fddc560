"""How much worse the model gets as pictures get worse."""

from collections.abc import Mapping
from typing import Any

from labelmill.evaluate.report.words import HEADLINES, METRIC_WORDS, number
from labelmill.page.curves import Curve, curve_chart, key
from labelmill.page.document import Section, beside, figures, table

__all__ = ["robustness_section"]

_COLOURS = {"blur": 1, "noise": 3, "jpeg": 4, "brightness": 2}
_WORDS = {"jpeg": "JPEG"}


def robustness_section(evaluation: Mapping[str, Any]) -> Section | None:
    found = evaluation["robustness"]
    if found is None:
        return None
    name = HEADLINES[evaluation["task"]]
    clean = found["clean"][name]
    curves = [
        Curve([(0.0, clean), *((step["strength"], step[name]) for step in found[kind])], colour)
        for kind, colour in _COLOURS.items()
        if clean is not None and all(step[name] is not None for step in found[kind])
    ]
    word = METRIC_WORDS[name]
    ticks = [(float(strength), str(strength) if strength else "clean") for strength in range(6)]
    legend = "".join(key(colour, _WORDS.get(kind, kind)) for kind, colour in _COLOURS.items())
    chart = curve_chart(curves, f"{word} over the strength", x_ticks=ticks, y=(0.0, 1.0)) if curves else ""
    listed = table(["", "clean", "1", "2", "3", "4", "5"], [_row(kind, found, name) for kind in _COLOURS])
    body = (
        f"<p>{word.capitalize()} on {found['num_pictures']:,} of the pictures, made worse in five steps.</p>"
        f"{beside(figures([(chart, legend)]) if chart else '', listed)}"
    )
    return Section("robustness", "Robustness", body)


def _row(kind: str, found: Mapping[str, Any], name: str) -> list[str]:
    steps = [f'<span title="{step["amount"]:g} {step["unit"]}">{number(step[name])}</span>' for step in found[kind]]
    return [_WORDS.get(kind, kind), number(found["clean"][name]), *steps]
