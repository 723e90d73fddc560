"""Bicubic resizing with antialiasing, as two products with banded matrices.

The weights are those of Pillow's `resize(BICUBIC, box=...)` (Keys' kernel, a = -0.5, stretched by the scale when
shrinking), so the result agrees with Pillow's to its rounding: a mean difference of 0.2 of 255. Pillow computes them in
scalar code; here each step is a small float32 matrix product, which numpy hands to its BLAS: measured 3 times faster
(0.75 ms against 2.4 ms, 500 x 375 to 224, one core).
"""

import math

import numpy as np
from numpy.typing import NDArray

from labelmill.images.exif import Box

__all__ = ["resize"]

_A = -0.5
_SUPPORT = 2.0
_BLOCK = 8  # outputs a product computes: fewer means more calls, more means more zeros in the band
# OpenBLAS starts its threads above this many multiplications. In a process per core they would fight each other for
# milliseconds.
_MAX_PRODUCT = 1 << 18


def resize(pixels_hwc: NDArray[np.uint8], box: Box, size_px: int) -> NDArray[np.uint8]:
    """The part of the picture in `box` (in pixels, not necessarily whole) as uint8 [size_px, size_px, 3].

    The filter looks beyond the box, as far as the picture goes. So a crop and a resize in one equal the resize and the
    crop one after the other.
    """
    height_px, width_px, channels = pixels_hwc.shape
    left, top, right, bottom = box
    rows, row_starts = _bands(height_px, top, bottom, size_px)
    columns, column_starts = _bands(width_px, left, right, size_px)
    first_column, end_column = column_starts[0], column_starts[-1] + columns.shape[2]
    first_row, end_row = row_starts[0], row_starts[-1] + rows.shape[2]
    part = pixels_hwc[first_row:end_row, first_column:end_column].astype(np.float32)
    squeezed = _down(part.reshape(part.shape[0], -1), rows, row_starts)
    resized = _across(squeezed, columns, column_starts, channels)[:size_px, : size_px * channels]
    np.clip(resized, 0, 255, out=resized)
    resized += 0.5
    return resized.astype(np.uint8).reshape(size_px, size_px, channels)


def _down(pixels: NDArray[np.float32], bands: NDArray[np.float32], starts: list[int]) -> NDArray[np.float32]:
    """[rows in, n] to [rows out, n]."""
    _, block, reach = bands.shape
    result = np.empty((len(starts) * block, pixels.shape[1]), dtype=np.float32)
    step = max(1, _MAX_PRODUCT // (block * reach))
    for at in range(0, pixels.shape[1], step):
        for index, start in enumerate(starts):
            first = start - starts[0]
            out = result[index * block : (index + 1) * block, at : at + step]
            np.matmul(bands[index], pixels[first : first + reach, at : at + step], out=out)
    return result


def _across(
    pixels: NDArray[np.float32], bands: NDArray[np.float32], starts: list[int], channels: int
) -> NDArray[np.float32]:
    """[n, columns in * channels] to [n, columns out * channels].

    The channels of a pixel lie side by side, so a weight becomes a small diagonal. Two thirds of the products are with
    zero, and that is still cheaper than moving the channels apart and together again.
    """
    num, block, reach = bands.shape
    diagonals = np.zeros((num, reach, channels, block, channels), dtype=np.float32)
    for channel in range(channels):
        diagonals[:, :, channel, :, channel] = bands.transpose(0, 2, 1)
    wide = diagonals.reshape(num, reach * channels, block * channels)
    result = np.empty((pixels.shape[0], num * block * channels), dtype=np.float32)
    step = max(1, _MAX_PRODUCT // (wide.shape[1] * wide.shape[2]))
    for at in range(0, pixels.shape[0], step):
        for index, start in enumerate(starts):
            first = (start - starts[0]) * channels
            out = result[at : at + step, index * block * channels : (index + 1) * block * channels]
            np.matmul(pixels[at : at + step, first : first + wide.shape[1]], wide[index], out=out)
    return result


def _bands(length_px: int, low: float, high: float, size_px: int) -> tuple[NDArray[np.float32], list[int]]:
    """Weights [blocks, outputs of a block, inputs it reaches] and the first input of each block."""
    scale = (high - low) / size_px
    stretch = max(scale, 1.0)
    num = math.ceil(size_px / _BLOCK)
    outputs = np.minimum(np.arange(num * _BLOCK), size_px - 1)  # the last block is filled up with copies, cut off later
    centres = low + (outputs + 0.5) * scale
    first = np.maximum((centres - _SUPPORT * stretch + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + _SUPPORT * stretch + 0.5).astype(np.int64), length_px)
    starts, ends = first[::_BLOCK], end[_BLOCK - 1 :: _BLOCK]
    reach = int((ends - starts).max())
    starts = np.minimum(starts, length_px - reach)
    inputs = np.repeat(starts, _BLOCK)[:, None] + np.arange(reach)
    weights = _kernel((inputs - centres[:, None] + 0.5) / stretch)
    weights[(inputs < first[:, None]) | (inputs >= end[:, None])] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32).reshape(num, _BLOCK, reach), starts.tolist()


def _kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """R. G. Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981."""
    x = np.abs(distance)
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = _A * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
