"""The one evaluation transform: validation, bulk, serving and evaluation all get their pixels here.

Measured against Pillow and torchvision (full decode, Resize, CenterCrop) to 224 px, in pictures per CPU-second, on a
busy 2-core container with AVX2 (tests/benchmarks/decode.py):

    200 photographs, mostly 500 x 375, crop 0.875   402 against 181: 2.2 times; mean absolute difference 0.20 of 255
    the same, crop 0.95                             402 against 186: 2.2 times; difference 0.20
    4000 x 3000 baseline JPEG                       36 against 4.4: 8.2 times; difference 0.26
    4000 x 3000 progressive JPEG                    8.6 against 3.7: 2.3 times; difference 0.26

At 96 and 32 px, where smaller DCT scales come in, it is 2.4 and 2.5 times, with differences of 0.8 and 0.7. Of the 2.1
to 2.5 ms that a 500 x 375 photograph takes, 1.6 ms are libjpeg-turbo's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import BundleError
from labelmill.images.decode import MAX_PIXELS, open_picture
from labelmill.images.exif import Box

__all__ = ["Preprocessing", "evaluation_box", "evaluation_pixels", "evaluation_views"]

Colour = tuple[float, float, float]  # red, green, blue, of pixels scaled to 0..1


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its pictures. It travels in the bundle, beside the weights.

    A picture is resized so that its shorter side is `image_size_px / crop_fraction`, and the square of `image_size_px`
    in its centre is kept. The engine then computes (pixel / 255 - mean) / std.
    """

    image_size_px: int
    crop_fraction: float = 1.0
    mean: Colour = (0.485, 0.456, 0.406)
    std: Colour = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.image_size_px < 1:
            raise ValueError(f"image_size_px: expected 1 or more, got {self.image_size_px!r}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction: expected more than 0 and at most 1, got {self.crop_fraction!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(math.isfinite(value) for value in self.mean):
            raise ValueError(f"mean and std: expected three numbers each, got {self.mean!r} and {self.std!r}")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            raise ValueError(f"std: expected three positive numbers, got {self.std!r}")

    @property
    def resize_px(self) -> int:
        """The shorter side to which a picture is resized before the crop."""
        return round(self.image_size_px / self.crop_fraction)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes, ready for `json.dumps`."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Preprocessing":
        """Reads what `to_json` gave. Raises BundleError where a field is missing, unknown or out of range."""
        try:
            mean, std = (tuple(float(value) for value in content[name]) for name in ("mean", "std"))
            unknown = sorted(set(content) - {"image_size_px", "crop_fraction", "mean", "std"})
            if unknown:
                raise ValueError(f"unknown fields {unknown}")
            return cls(int(content["image_size_px"]), float(content["crop_fraction"]), mean, std)  # type: ignore[arg-type]
        except KeyError as exc:
            raise BundleError(f"preprocessing: the field {exc} is missing; publish the model again") from exc
        except (TypeError, ValueError) as exc:
            raise BundleError(f"preprocessing: {exc}; publish the model again") from exc


def evaluation_pixels(
    data: bytes, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], int, int]:
    """The pixels that the network sees, uint8 [S, S, 3], RGB, and the width and height of the whole picture, upright.

    Raises what `decode` raises: UnreadableError, UnsupportedError or TooLargeError.
    """
    [pixels_hwc], width_px, height_px = evaluation_views(data, [preprocessing], max_pixels=max_pixels)
    return pixels_hwc, width_px, height_px


def evaluation_views(
    data: bytes, preprocessings: Sequence[Preprocessing], *, max_pixels: int = MAX_PIXELS
) -> tuple[list[NDArray[np.uint8]], int, int]:
    """`evaluation_pixels` for several networks at once: each gets exactly the pixels that it would get alone, and what
    two of them see alike is decoded, or resized, once.
    """
    picture = open_picture(data, max_pixels=max_pixels)
    views: dict[tuple[int, float], NDArray[np.uint8]] = {}
    for preprocessing in preprocessings:
        view = preprocessing.image_size_px, preprocessing.crop_fraction
        if view not in views:
            box = evaluation_box(picture.width_px, picture.height_px, preprocessing)
            views[view] = picture.crop(box, preprocessing.image_size_px)
    pixels = [views[preprocessing.image_size_px, preprocessing.crop_fraction] for preprocessing in preprocessings]
    return pixels, picture.width_px, picture.height_px


def evaluation_box(width_px: int, height_px: int, preprocessing: Preprocessing) -> Box:
    """What torchvision's `Resize(resize_px)` and `CenterCrop(image_size_px)` keep of a picture, in its own pixels.

    Both round: the longer side down, the offset of the crop to the nearest whole number (an even one when in doubt). So
    do we, or the picture would be shifted against the reference by up to half a pixel.
    """
    size_px, shorter_px = preprocessing.image_size_px, preprocessing.resize_px
    if width_px <= height_px:
        resized = (shorter_px, int(shorter_px * height_px / width_px))
    else:
        resized = (int(shorter_px * width_px / height_px), shorter_px)
    left, top = (round((side - size_px) / 2.0) for side in resized)
    x, y = width_px / resized[0], height_px / resized[1]
    return left * x, top * y, (left + size_px) * x, (top + size_px) * y
