"""Pictures mixed with one another, labels and all: on the device, where a batch is one array of floats already."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from labelmill.spec import Augment

__all__ = ["mixed"]


def mixed(pixels: Tensor, targets: Tensor, augment: Augment, seed: Sequence[int]) -> tuple[Tensor, Tensor]:
    """A batch, pixels [B, 3, S, S] and targets [B, L] of 0 to 1, each picture mixed with the one before it.

    By mixup (Zhang et al., 2018) or CutMix (Yun et al., 2019), by turns where both are on; at least half of a picture
    stays its own. Targets are mixed as the pixels are, each label alone: of several labels, one that both pictures have
    stays 1, and with one label a picture they still add up to 1. The same seed draws the same mix.
    """
    if not (augment.mixup or augment.cutmix):
        return pixels, targets
    rng = np.random.default_rng(seed)
    cut = augment.cutmix > 0 and (augment.mixup == 0 or rng.random() < 0.5)
    alpha = augment.cutmix if cut else augment.mixup
    share = float(rng.beta(alpha, alpha))  # of a picture itself
    share = max(share, 1 - share)
    if cut:
        pixels, share = _pasted(pixels, share, rng)
    else:
        pixels = torch.lerp(_before(pixels), pixels, share)
    return pixels, torch.lerp(_before(targets), targets, share)


def _before(rows: Tensor) -> Tensor:
    """The neighbour of each row: a random partner, since batches are in random order. Channels last stay last."""
    return torch.cat((rows[-1:], rows[:-1]))


def _pasted(pixels: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """With a box of the partner about a random point, and the share of a picture that is still its own."""
    height, width = pixels.shape[2:]
    side = math.sqrt(1 - share)
    top, bottom = _span(height, side, rng)
    left, right = _span(width, side, rng)
    pixels = pixels.clone()
    pixels[:, :, top:bottom, left:right] = _before(pixels[:, :, top:bottom, left:right])
    return pixels, 1 - (bottom - top) * (right - left) / (height * width)


def _span(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Where the box begins and ends; it may reach beyond the edge, and is cut off there."""
    half, centre = round(length * share / 2), int(rng.integers(length))
    return max(0, centre - half), min(length, centre + half)
