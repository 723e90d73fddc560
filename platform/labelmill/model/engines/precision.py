"""Whether a network computes in bfloat16: where that is much faster, and its answers stay what they are.

bfloat16 has 8 bits of mantissa (https://en.wikipedia.org/wiki/Bfloat16_floating-point_format). What it does to a
network is seen on made pictures, of which there are enough to tell one decision in 200 apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelmill.model.bundle import Bundle
from labelmill.model.engines import PrecisionName

__all__ = ["PROBE_PICTURES", "TOLERANCE", "Comparison", "furthest", "made_pictures", "same_decisions"]

TOLERANCE = 2e-2
PROBE_PICTURES = 256
_WORTH_IT = 1.3
_SAME_DECISIONS = 0.995
_LARGEST_GRAIN = 16


@dataclass(frozen=True)
class Comparison:
    """bfloat16 beside float32, on one processor: how many times as fast, how far the outputs are from one another (see
    `furthest`), and of what share of the pictures the labels are the same."""

    gain: float
    difference: float
    same_decisions: float

    def takes(self, asked: PrecisionName) -> bool:
        """Whether an engine that is asked for this computes in bfloat16."""
        if asked == "float32" or not self.difference <= TOLERANCE:
            return False
        return asked == "bfloat16" or (self.gain >= _WORTH_IT and self.same_decisions >= _SAME_DECISIONS)


def made_pictures(count: int, image_size_px: int) -> NDArray[np.uint8]:
    """uint8 [count, S, S, 3], the same for the same arguments: colours in grains from one pixel to a sixteenth of the
    picture and more, strong and faint, so that a network does not say the same of all."""
    rng = np.random.default_rng(0)
    pictures = np.empty((count, image_size_px, image_size_px, 3), np.uint8)
    for picture in pictures:
        cells = int(rng.integers(2, max(3, image_size_px // int(rng.integers(1, _LARGEST_GRAIN + 1)))))
        contrast, middle = rng.uniform(0.2, 1.0), rng.uniform(64, 192, size=3)
        coarse = middle + contrast * rng.uniform(-128, 128, size=(cells, cells, 3))
        rows = np.arange(image_size_px) * cells // image_size_px
        picture[:] = np.clip(coarse[rows][:, rows], 0, 255)
    return pictures


def furthest(expected: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]]) -> float:
    """The largest difference in any output, as a share of its largest value where that is over 1; inf for no number."""
    differences = [0.0]
    for wanted, got in zip(expected, found, strict=True):
        differences.append(float(np.abs(got - wanted).max()) / max(1.0, float(np.abs(wanted).max())))
    return max(differences) if np.isfinite(differences).all() else float("inf")


def same_decisions(bundle: Bundle, expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The share of pictures, by their logits [N, L], of which the bundle says the same labels."""
    decided = [[bundle.decide(row) for row in bundle.confidences(logits)] for logits in (expected, found)]
    same = [{label for label, _ in one} == {label for label, _ in other} for one, other in zip(*decided, strict=True)]
    return sum(same) / len(same)
