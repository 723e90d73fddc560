"""The answers that were most sure and wrong, as pictures, with where the network looked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import ImageError
from labelmill.images.decode import MAX_PIXELS
from labelmill.images.transform import evaluation_pixels
from labelmill.model.bundle import Bundle
from labelmill.model.explain import Explainer, Explanation
from labelmill.page.document import Section
from labelmill.page.pictures import heat_image, jpeg_image
from labelmill.storage import read_pictures

__all__ = ["Looked", "look_at_mistakes", "mistake_section"]

_SIDE_PX = 168
_MOST_LABELS = 3


@dataclass(frozen=True)
class Looked:
    """A mistake with what the network saw of its picture, [168, 168, 3], and where in it the label was seen."""

    mistake: Mapping[str, Any]
    pixels_hwc: NDArray[np.uint8]
    explanation: Explanation


def look_at_mistakes(
    bundle: Bundle, mistakes: Sequence[Mapping[str, Any]], *, max_pixels: int = MAX_PIXELS
) -> list[Looked]:
    """Read the pictures of an evaluation's mistakes again and explain them; one that has gone is passed over.

    BundleError: the bundle is damaged.
    """
    if not mistakes:
        return []
    explainer = Explainer(bundle, max_pixels=max_pixels)
    shown = replace(bundle.preprocessing, image_size_px=_SIDE_PX)
    found = []
    read = read_pictures([(mistake["uri"], None) for mistake in mistakes])
    for mistake, data in zip(mistakes, read, strict=True):
        if not isinstance(data, bytes):
            continue
        try:
            pixels_hwc, _, _ = evaluation_pixels(data, shown, max_pixels=max_pixels)
            found.append(Looked(mistake, pixels_hwc, explainer.explain(data, mistake["label"])))
        except ImageError:
            continue  # it was read a moment ago, and is being replaced
    return found


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
    sheet = f'<div class="sheet">{"".join(_figure(each) for each in looked)}</div>'
    return Section("mistakes", "Worst mistakes", f"{words}{switch}{sheet}")


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
