"""What a network sees of a picture in training: a random part of it, varied as the spec says.

Training uses the same decode and the same resize as evaluation; what follows works on the small picture. It is done by
numpy and Pillow, which torchvision.transforms.v2 calls for pictures too. Every number is drawn from the generator that
comes along, so how a picture varies does not depend on the thread or the worker that makes it; and no torch is needed.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from labelmill.images.colour import varied_colours
from labelmill.images.decode import MAX_PIXELS, open_picture
from labelmill.images.exif import Box
from labelmill.images.geometry import Colour, moved
from labelmill.images.policy import by_policy
from labelmill.images.resize import Resize, resize_all
from labelmill.images.transform import Preprocessing
from labelmill.spec import Augment

__all__ = ["augmented", "training_box", "training_pixels"]

_TRIES = 10
_ASPECTS = (3 / 4, 4 / 3)
_ERASED_SHARES, _ERASED_ASPECTS = (0.02, 1 / 3), (0.3, 3.3)
_BLUR_RADII = (0.001, 0.01)  # of the side: 0.2 to 2.2 px of 224, as SimCLR (Chen et al., 2020)


def training_pixels(
    data: bytes,
    preprocessing: Preprocessing,
    augment: Augment,
    *,
    rng: np.random.Generator,
    max_pixels: int = MAX_PIXELS,
    resize: Resize = resize_all,
) -> NDArray[np.uint8]:
    """A random part of the picture as uint8 [S, S, 3], RGB; the same pixels for the same state of `rng`.

    The part covers a share of the area within `crop_scale` and has an aspect ratio within 3/4 and 4/3 (Szegedy et al.,
    Going Deeper with Convolutions, 2014). Raises what `decode` raises.
    """
    picture = open_picture(data, max_pixels=max_pixels)
    box = training_box(picture.width_px, picture.height_px, augment.crop_scale, rng)
    # The crop before the resize, as in torchvision; its weights then depend on the box's size alone, and are kept.
    part_hwc = picture.cut(box, preprocessing.image_size_px)
    mirror_x, mirror_y = rng.random(2) < 0.5
    mirrored = bool(mirror_x and augment.flip != "none"), bool(mirror_y and augment.flip == "both")
    pixels_hwc = resize(part_hwc, preprocessing.image_size_px, mirrored)
    red, green, blue = (round(255 * value) for value in preprocessing.mean)
    return np.ascontiguousarray(augmented(pixels_hwc, augment, (red, green, blue), rng))


def augmented(
    pixels_hwc: NDArray[np.uint8], augment: Augment, ground: Colour, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A square picture varied: coloured, moved (`ground` is what shows beside it), and partly erased."""
    pixels_hwc = varied_colours(pixels_hwc, augment, rng)
    if augment.rotate_deg or augment.shear_deg or augment.perspective or augment.policy != "none" or augment.blur:
        picture = by_policy(moved(Image.fromarray(pixels_hwc), augment, ground, rng), augment, ground, rng)
        if rng.random() < augment.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(picture.width * rng.uniform(*_BLUR_RADII)))
        pixels_hwc = np.asarray(picture)
    return _erased(pixels_hwc, rng) if rng.random() < augment.erase else pixels_hwc


def training_box(width_px: int, height_px: int, crop_scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A random box in whole pixels; the centre of the picture where ten tries found none that fits (a very long
    picture).
    """
    box = _box(width_px, height_px, crop_scale, _ASPECTS, rng)
    return _centre(width_px, height_px) if box is None else box


def _box(
    width_px: int,
    height_px: int,
    shares: tuple[float, float],
    aspects: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int] | None:
    # All numbers are drawn at once: how many a picture takes must not depend on its size, or the next one's would.
    draws = rng.random((_TRIES, 4))
    low, high = (math.log(aspect) for aspect in aspects)
    for share, lean, across, down in draws:
        area = width_px * height_px * (shares[0] + share * (shares[1] - shares[0]))
        aspect = math.exp(low + lean * (high - low))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= width_px and 0 < height <= height_px:
            left, top = int(across * (width_px - width + 1)), int(down * (height_px - height + 1))
            return left, top, left + width, top + height
    return None


def _centre(width_px: int, height_px: int) -> Box:
    """The largest part in the centre whose aspect ratio is allowed."""
    low, high = _ASPECTS
    width = min(width_px, max(1, round(height_px * high)))
    height = min(height_px, max(1, round(width_px / low)))
    left, top = (width_px - width) // 2, (height_px - height) // 2
    return left, top, left + width, top + height


def _erased(pixels_hwc: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """With a random box full of noise (Zhong et al., Random Erasing Data Augmentation, 2017)."""
    box = _box(pixels_hwc.shape[1], pixels_hwc.shape[0], _ERASED_SHARES, _ERASED_ASPECTS, rng)
    if box is None:
        return pixels_hwc
    left, top, right, bottom = box
    pixels_hwc = pixels_hwc.copy()
    pixels_hwc[top:bottom, left:right] = rng.integers(0, 256, (bottom - top, right - left, 3), dtype=np.uint8)
    return pixels_hwc
