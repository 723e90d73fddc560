"""What a smaller model costs and what it gains: the same pictures answered before and after."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from labelmill.dataset import Examples
from labelmill.errors import DataError
from labelmill.evaluate.answers import answer, measure
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.engines import EngineName
from labelmill.model.labeler import Labeler
from labelmill.model.quantized import INT8_WEIGHTS, is_quantized
from labelmill.train.progress import METRIC_BY_TASK

__all__ = ["Comparison", "compare", "pictures_per_s"]

_BATCH_SIZE = 8
_MEASURE_S = 1.0


@dataclass(frozen=True)
class Comparison:
    """`before` and `after` are values of `metric` on the same `num_pictures`; rates are of the forward pass on one
    thread of the machine that made the model."""

    model: str
    metric: str
    before: float
    after: float
    num_pictures: int
    pictures_per_s_before: float
    pictures_per_s_after: float
    size_bytes_before: int
    size_bytes_after: int

    @property
    def loss(self) -> float:
        """How much of the metric was lost; below zero where it gained."""
        return self.before - self.after

    @property
    def speedup(self) -> float:
        return self.pictures_per_s_after / self.pictures_per_s_before

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.before:.4f} before and {self.after:.4f} after, {self.speedup:.2f} times as fast "
            f"({self.pictures_per_s_after:.1f} pictures/s on one thread)"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "loss": self.loss, "speedup": self.speedup}

    def check(self, max_loss: float, advice: str) -> None:
        """DataError when more was lost than is allowed; nothing is published then."""
        if self.loss > max_loss:
            raise DataError(
                f"{self.model} would lose {self.loss:.4f} of {self.metric} ({self.before:.4f} before, {self.after:.4f} "
                f"after, on {self.num_pictures} pictures), and max_accuracy_loss allows {max_loss:g}: nothing is "
                f"published. {advice}"
            )


def compare(
    before: Bundle, after: Bundle, pictures: Examples, *, max_pixels: int, engine: EngineName = "auto"
) -> Comparison:
    """Both bundles over the same labelled pictures, as they would label in bulk."""
    metric = METRIC_BY_TASK[before.task]
    labelers = [Labeler(bundle, engine, num_threads=1, max_pixels=max_pixels) for bundle in (before, after)]
    value_before, value_after = (
        float(measure(labeler.bundle, answer(labeler, pictures))[metric] or 0.0) for labeler in labelers
    )
    rate_before, rate_after = pictures_per_s(labelers)
    return Comparison(
        model=before.reference,
        metric=metric,
        before=value_before,
        after=value_after,
        num_pictures=len(pictures),
        pictures_per_s_before=rate_before,
        pictures_per_s_after=rate_after,
        size_bytes_before=_size_bytes(before),
        size_bytes_after=_size_bytes(after),
    )


def pictures_per_s(labelers: Sequence[Labeler]) -> list[float]:
    """How many pictures a second each labeler's forward pass does, in batches of eight, interleaved: what else the
    machine does then slows them alike, and the fastest batch of each counts."""
    batches = []
    for labeler in labelers:
        side = labeler.bundle.preprocessing.image_size_px
        batches.append(np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE, side, side, 3), dtype=np.uint8))
    fastest_s = [float("inf")] * len(labelers)
    until = time.perf_counter() + _MEASURE_S * len(labelers)
    rounds = 0
    while rounds < 3 or time.perf_counter() < until:
        for index, (labeler, batch) in enumerate(zip(labelers, batches, strict=True)):
            started = time.perf_counter()
            labeler.confidences(batch)
            fastest_s[index] = min(fastest_s[index], time.perf_counter() - started)
        rounds += 1
    return [_BATCH_SIZE / seconds for seconds in fastest_s]


def _size_bytes(bundle: Bundle) -> int:
    """Of the weights that answer."""
    return bundle.files[INT8_WEIGHTS if is_quantized(bundle) else WEIGHTS_NAME].size_bytes
