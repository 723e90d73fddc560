"""Brightness, contrast, saturation, hue and gray in one pass: together they are a matrix and an offset a picture.

torchvision's ColorJitter takes a pass for each, and its hue goes through HSV and back. Here hue turns in the plane of
the colour differences of YIQ, as in NVIDIA DALI's ColorTwist, and nothing is cut off at 0 or 255 before the end.
"""

import math

import numpy as np
from numpy.typing import NDArray

from labelmill.spec import Augment

__all__ = ["varied_colours"]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_ROWS = 1 << 13  # pixels at a time: what they need stays in the cache, and is too little for OpenBLAS to start threads


def varied_colours(pixels_hwc: NDArray[np.uint8], augment: Augment, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with the colours that `augment.colour` and `augment.grayscale` allow, drawn from `rng`."""
    brightness, contrast, saturation, hue, gray = rng.random(5)
    jitter = augment.colour
    if gray < augment.grayscale:
        saturate, turn = 0.0, 0.0
    else:
        saturate, turn = _around_one(jitter.saturation, saturation), (2 * hue - 1) * jitter.hue
    if not (jitter.brightness or jitter.contrast or saturate != 1 or turn):
        return pixels_hwc
    matrix = _around_one(jitter.brightness, brightness) * (_saturation(saturate) @ _hue(turn))
    if not jitter.contrast:
        return _recoloured(pixels_hwc, matrix, 0.0)
    factor = _around_one(jitter.contrast, contrast)
    mean_gray = float(_LUMA @ matrix @ _mean(pixels_hwc))
    return _recoloured(pixels_hwc, factor * matrix, (1 - factor) * mean_gray)


def _around_one(spread: float, draw: float) -> float:
    return 1 + (2 * draw - 1) * spread


def _saturation(factor: float) -> NDArray[np.float64]:
    return factor * np.eye(3) + (1 - factor) * _LUMA  # each row of the second part is the picture in gray


def _hue(turn: float) -> NDArray[np.float64]:
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    # By a positive turn red becomes yellow and green, as in HSV.
    turned: NDArray[np.float64] = _FROM_YIQ @ np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]]) @ _TO_YIQ
    return turned


def _mean(pixels_hwc: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean of each channel, [3]."""
    columns = pixels_hwc.reshape(len(pixels_hwc), -1).sum(axis=0, dtype=np.uint32)  # whole rows: wide, hence fast
    mean: NDArray[np.float64] = columns.reshape(-1, 3).sum(axis=0) * 3 / pixels_hwc.size
    return mean


def _recoloured(pixels_hwc: NDArray[np.uint8], matrix: NDArray[np.float64], offset: float) -> NDArray[np.uint8]:
    pixels = pixels_hwc.reshape(-1, 3)
    result = np.empty_like(pixels)
    transposed = np.ascontiguousarray(matrix.T, dtype=np.float32)
    for at in range(0, len(pixels), _ROWS):
        levels = pixels[at : at + _ROWS].astype(np.float32) @ transposed
        levels += np.float32(offset + 0.5)
        result[at : at + _ROWS] = np.clip(levels, 0, 255, out=levels)
    return result.reshape(pixels_hwc.shape)
