"""The answers that were most sure and wrong, as pictures, with where the network looked."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from labelmill.evaluate.report.pictures import Looked
from labelmill.page.document import Section, folded
from labelmill.page.pictures import heat_image, jpeg_image

__all__ = ["mistake_section"]

_MOST_LABELS, _SHOWN_AT_ONCE = 3, 12


def mistake_section(looked: Sequence[Looked]) -> Section | None:
    """The pictures, their heat switched on and off by a tick box: the page runs no script."""
    if not looked:
        return None
    method = looked[0].explanation.method
    words = "<p>Where the model was most sure and wrong. The picture is cut as the network sees it.</p>"
    switch = (
        '<input class="switch" type="checkbox" id="heat" checked><label for="heat">Show where it saw the label '
        f"({method})</label>"
    )
    rest = looked[_SHOWN_AT_ONCE:]
    more = folded(f"{len(rest)} more", _sheet(rest)) if rest else ""
    return Section("mistakes", "Worst mistakes", f"{words}{switch}{_sheet(looked[:_SHOWN_AT_ONCE])}{more}")


def _sheet(looked: Sequence[Looked]) -> str:
    return f'<div class="sheet">{"".join(_figure(each) for each in looked)}</div>'


def _figure(looked: Looked) -> str:
    uri = escape(looked.mistake["uri"], quote=True)
    heat_hw = looked.explanation.heat_hw
    heat = heat_image(heat_hw) if heat_hw.any() else ""
    return (
        f'<figure title="{uri}"><div class="look">{jpeg_image(looked.pixels_hwc, uri)}{heat}</div>'
        f"<figcaption>{_caption(looked.mistake)}</figcaption></figure>"
    )


def _caption(mistake: Mapping[str, Any]) -> str:
    label, confidence = escape(mistake["label"]), f"{mistake['confidence']:.2f}"
    true = _listed(mistake["true"])
    match mistake["kind"]:
        case "false_negative":
            given = _listed([name for name, _ in mistake["given"]])
            return f'<span class="bad">missed <b>{label}</b></span> {confidence}<br>given: {given}'
        case "false_positive":
            return f'<span class="bad">given <b>{label}</b></span> {confidence}<br>has: {true}'
    return f'<span class="bad"><b>{label}</b></span> {confidence}<br>is: {true}'


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    return escape(", ".join(labels[:_MOST_LABELS])) + more if labels else "none"
