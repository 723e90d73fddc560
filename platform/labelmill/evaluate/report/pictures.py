"""The pictures of a report: read again from the store and made small; one that has gone costs only itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import ImageError
from labelmill.images.decode import MAX_PIXELS
from labelmill.images.transform import Preprocessing, evaluation_pixels
from labelmill.model.bundle import Bundle
from labelmill.page.pictures import jpeg_image
from labelmill.storage import read_pictures

if TYPE_CHECKING:
    from labelmill.model.explain import Explanation

__all__ = ["Looked", "ReportPictures", "look_at_mistakes", "thumbnails"]

_SIDE_PX, _THUMBNAIL_PX = 168, 112


@dataclass(frozen=True)
class Looked:
    """A mistake with what the network saw of its picture, [168, 168, 3], and where in it the label was seen."""

    mistake: Mapping[str, Any]
    pixels_hwc: NDArray[np.uint8]
    explanation: Explanation


@dataclass(frozen=True)
class ReportPictures:
    """What a report shows beside its numbers; `thumbnails` are <img> by uri."""

    looked: Sequence[Looked] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)


def look_at_mistakes(
    bundle: Bundle, mistakes: Sequence[Mapping[str, Any]], *, max_pixels: int = MAX_PIXELS
) -> list[Looked]:
    """Explain the mistakes of an evaluation; a picture that cannot be read any more is passed over.

    BundleError: the bundle is damaged.
    """
    if not mistakes:
        return []
    from labelmill.model.explain import Explainer  # torch, without which a report can be drawn

    explainer = Explainer(bundle, max_pixels=max_pixels)
    shown = replace(bundle.preprocessing, image_size_px=_SIDE_PX)
    found = []
    read = read_pictures([(mistake["uri"], None) for mistake in mistakes])
    for mistake, data in zip(mistakes, read, strict=True):
        pixels_hwc = _pixels(data, shown, max_pixels)
        if pixels_hwc is not None and isinstance(data, bytes):
            found.append(Looked(mistake, pixels_hwc, explainer.explain(data, mistake["label"])))
    return found


def thumbnails(uris: Iterable[str], *, max_pixels: int = MAX_PIXELS) -> dict[str, str]:
    """An <img> of the middle of each picture that can be read."""
    distinct = list(dict.fromkeys(uris))
    read = read_pictures([(uri, None) for uri in distinct])
    seen = {
        uri: _pixels(data, Preprocessing(_THUMBNAIL_PX), max_pixels) for uri, data in zip(distinct, read, strict=True)
    }
    return {uri: jpeg_image(pixels, escape(uri, quote=True)) for uri, pixels in seen.items() if pixels is not None}


def _pixels(data: bytes | Exception, preprocessing: Preprocessing, max_pixels: int) -> NDArray[np.uint8] | None:
    if not isinstance(data, bytes):
        return None
    try:
        return evaluation_pixels(data, preprocessing, max_pixels=max_pixels)[0]
    except ImageError:
        return None
