"""What cameras, networks and weather do to pictures, at five strengths: blur, noise, JPEG and brightness.

After Hendrycks and Dietterich (2019: Benchmarking Neural Network Robustness to Common Corruptions), who corrupt what
the network sees, after resize and crop. Their blur is given in pixels of 224; here it is a share of the side, so that a
small network gets what a large one gets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["CORRUPTIONS", "Corruption", "corrupted"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Corruption:
    """`amounts` at strengths 1 to 5, and what they are counted in."""

    amounts: tuple[float, float, float, float, float]
    unit: str


CORRUPTIONS: Mapping[str, Corruption] = {
    "blur": Corruption((0.005, 0.01, 0.015, 0.02, 0.03), "standard deviation, of the side"),
    "noise": Corruption((0.04, 0.08, 0.12, 0.18, 0.26), "standard deviation, of white"),
    "jpeg": Corruption((80, 50, 25, 15, 8), "quality"),
    "brightness": Corruption((0.1, 0.2, 0.3, 0.4, 0.5), "added, of white"),
}


def corrupted(pixels_hwc: Pixels, name: str, strength: int, rng: np.random.Generator) -> Pixels:
    """The pixels uint8 [S, S, 3] after one of CORRUPTIONS, at a strength of 1 to 5. `rng` draws the noise."""
    amount = CORRUPTIONS[name].amounts[strength - 1]
    match name:
        case "blur":
            blur = ImageFilter.GaussianBlur(amount * len(pixels_hwc))
            return np.asarray(Image.fromarray(pixels_hwc).filter(blur))
        case "noise":
            return _pixels(pixels_hwc + rng.normal(0, amount * 255, pixels_hwc.shape))
        case "jpeg":
            data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels_hwc), quality=int(amount), colorsubsampling="420")
            return np.asarray(simplejpeg.decode_jpeg(data))
        case _:
            return _pixels(pixels_hwc + amount * 255)


def _pixels(values: NDArray[np.floating[Any]]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)
