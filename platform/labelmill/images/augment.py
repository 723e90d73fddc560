"""What a network sees of a picture in training: a random part of it, possibly mirrored.

Training uses the same decode and the same resize as evaluation; only the box and the flips are drawn.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelmill.images.decode import MAX_PIXELS, open_picture
from labelmill.images.exif import Box
from labelmill.images.transform import Preprocessing

__all__ = ["Flip", "training_box", "training_pixels"]

Flip = Literal["none", "horizontal", "both"]

_TRIES = 10
_ASPECTS = (3 / 4, 4 / 3)


def training_pixels(
    data: bytes,
    preprocessing: Preprocessing,
    *,
    flip: Flip,
    crop_scale: tuple[float, float],
    rng: np.random.Generator,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """A random part of the picture as uint8 [S, S, 3], RGB; the same part for the same state of `rng`.

    The part covers a share of the area within `crop_scale` and has an aspect ratio within 3/4 and 4/3 (Szegedy et al.,
    Going Deeper with Convolutions, 2014). `both` mirrors upside down too, as suits pictures taken from above. Raises
    what `decode` raises.
    """
    picture = open_picture(data, max_pixels=max_pixels)
    box = training_box(picture.width_px, picture.height_px, crop_scale, rng)
    pixels_hwc = picture.crop(box, preprocessing.image_size_px)
    mirror_x, mirror_y = rng.random(2) < 0.5
    if mirror_x and flip != "none":
        pixels_hwc = pixels_hwc[:, ::-1]
    if mirror_y and flip == "both":
        pixels_hwc = pixels_hwc[::-1]
    return np.ascontiguousarray(pixels_hwc)


def training_box(width_px: int, height_px: int, crop_scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A random box in whole pixels; the centre of the picture where ten tries found none that fits (a very long
    picture).
    """
    # All numbers are drawn at once: how many a picture takes must not depend on its size, or the next one's would.
    draws = rng.random((_TRIES, 4))
    low, high = (math.log(aspect) for aspect in _ASPECTS)
    for share, lean, across, down in draws:
        area = width_px * height_px * (crop_scale[0] + share * (crop_scale[1] - crop_scale[0]))
        aspect = math.exp(low + lean * (high - low))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= width_px and 0 < height <= height_px:
            left, top = int(across * (width_px - width + 1)), int(down * (height_px - height + 1))
            return left, top, left + width, top + height
    return _centre(width_px, height_px)


def _centre(width_px: int, height_px: int) -> Box:
    """The largest part in the centre whose aspect ratio is allowed."""
    low, high = _ASPECTS
    width = min(width_px, max(1, round(height_px * high)))
    height = min(height_px, max(1, round(width_px / low)))
    left, top = (width_px - width) // 2, (height_px - height) // 2
    return left, top, left + width, top + height
