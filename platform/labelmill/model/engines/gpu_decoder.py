"""JPEGs to the network's pixels on a GPU: decoded by nvJPEG, resized there.

Measured on an NVIDIA H100 and 16 cores, 200 photographs of mostly 500 x 375: nvJPEG decodes 16,000/s in one thread,
and no more in several; its pixels differ from turbo's by 0.13 of 255.
"""

import io
import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from labelmill.images.transform import Preprocessing, evaluation_box

__all__ = ["can_decode", "decode", "views"]

logger = logging.getLogger(__name__)

_SUPPORT = 2.0
_AT_ONCE = 64
_ALIGNED_PX = 64  # tensor cores want rows of whole lines


def can_decode(device: torch.device) -> bool:
    """Whether torchvision decodes JPEGs there: it can be built without, or the library may be missing."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG")
    if decode(np.frombuffer(out.getvalue(), np.uint8), [out.tell()], device) is None:
        logger.warning("JPEGs are decoded on the CPU: torchvision cannot on %s", device)
        return False
    return True


def decode(jpegs: NDArray[np.uint8], sizes_bytes: Sequence[int], device: torch.device) -> list[Tensor] | None:
    """The pictures whose bytes stand one after another in `jpegs`: uint8 [3, H, W] each, RGB, on the current stream.
    None where one of them cannot be decoded: nobody says which."""
    encoded = torch.split(torch.from_numpy(np.array(jpegs)), list(sizes_bytes))  # a copy: what is shared is read-only
    try:
        decoded: list[Tensor] = decode_jpeg(list(encoded), mode=ImageReadMode.RGB, device=device)
    except RuntimeError:
        return None
    return decoded


def views(pixels_chw: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
    """What the network sees of each picture, uint8 [B, S, S, 3]: Keys' kernel as in `images.resize`, as products with
    banded matrices, for many pictures in a few calls. One after another, a GPU has little to do and takes 70 us each.
    """
    parts = [_resized(pixels_chw[at : at + _AT_ONCE], preprocessing) for at in range(0, len(pixels_chw), _AT_ONCE)]
    return torch.cat(parts)


def _resized(pixels_chw: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
    device = pixels_chw[0].device
    # Half floats hold 0 to 255 exactly, and what is between them to an eighth; products are summed in float32.
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    heights, widths = ([pixels.shape[axis] for pixels in pixels_chw] for axis in (1, 2))
    boxes = [evaluation_box(*size, preprocessing) for size in zip(widths, heights, strict=True)]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    height_px, width_px = (-(-max(sides) // _ALIGNED_PX) * _ALIGNED_PX for sides in (heights, widths))
    padded = torch.zeros(len(boxes), 3, height_px, width_px, dtype=dtype, device=device)
    for row, pixels in enumerate(pixels_chw):
        padded[row, :, : heights[row], : widths[row]].copy_(pixels)
    across = _bands(lefts, rights, widths, width_px, preprocessing.image_size_px, device).to(dtype)
    down = _bands(tops, bottoms, heights, height_px, preprocessing.image_size_px, device).to(dtype)
    narrow = torch.bmm(padded.flatten(1, 2), across.transpose(1, 2)).view(len(boxes), 3, height_px, -1)
    resized = torch.matmul(down[:, None], narrow)
    return resized.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _bands(
    lows: Sequence[float],
    highs: Sequence[float],
    lengths: Sequence[int],
    padded_px: int,
    size_px: int,
    device: torch.device,
) -> Tensor:
    """[B, size_px, padded_px]: how much each pixel of a side adds to each of the `size_px` that it becomes, where
    those from `low` to `high` are kept."""
    low, high, length = torch.tensor([lows, highs, lengths], dtype=torch.float64).to(device).float()[:, :, None, None]
    scale = (high - low) / size_px
    stretch = scale.clamp(min=1.0)
    centres = low + (torch.arange(size_px, device=device)[:, None] + 0.5) * scale
    widest = max((high - low) / size_px for low, high in zip(lows, highs, strict=True))
    num_taps = math.ceil(2 * _SUPPORT * max(widest, 1.0)) + 1
    first = (centres - _SUPPORT * stretch + 0.5).floor()
    pixels = first + torch.arange(num_taps, device=device)
    distance = ((pixels + 0.5 - centres) / stretch).abs()
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < _SUPPORT, far, 0.0))
    weights = torch.where((pixels >= 0) & (pixels < length), weights, 0.0)
    weights = weights / weights.sum(dim=2, keepdim=True)
    bands = torch.zeros(len(lows), size_px, padded_px, device=device)
    return bands.scatter_add_(2, pixels.clamp(0, padded_px - 1).long(), weights)
