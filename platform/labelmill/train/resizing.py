"""Resizing where torch is at hand: twice as fast as `images.resize`, whose result it gives to a level or two of 255.

Labelling, which imports no torch, keeps that one, and so do validation and evaluation, which see what labelling sees.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

__all__ = ["resize_by_torch"]


def resize_by_torch(pixels_hwc: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """The whole picture, bicubic with antialiasing as in Pillow: uint8 [H, W, 3] to [size_px, size_px, 3]."""
    # Pillow hands out pixels that may not be written to, of which torch would warn.
    own_hwc = np.require(pixels_hwc, requirements=("C", "W"))
    pixels = torch.from_numpy(own_hwc).permute(2, 0, 1).unsqueeze(0)  # channels last in memory
    resized = functional.interpolate(pixels, size=(size_px, size_px), mode="bicubic", antialias=True)
    result: NDArray[np.uint8] = resized[0].permute(1, 2, 0).contiguous().numpy()
    return result
