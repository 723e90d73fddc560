"""What was true and what was answered, checked once, in the shapes that every metric takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelmill.errors import DataError

__all__ = ["Decisions", "decide", "matrices"]


@dataclass(frozen=True)
class Decisions:
    """Truth, confidences and the labels that were given, each [N, L]."""

    task: str
    labels: tuple[str, ...]
    truth: NDArray[np.bool_]
    confidences: NDArray[np.float64]
    predicted: NDArray[np.bool_]


def decide(
    task: str, labels: Sequence[str], targets: ArrayLike, confidences: ArrayLike, thresholds: Sequence[float]
) -> Decisions:
    """multi_class takes the top label and ignores the thresholds; else there is one for each label."""
    truth, scores = matrices(targets, confidences)
    if task == "multi_class":
        predicted = np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]
    else:
        predicted = scores >= np.asarray(thresholds, dtype=np.float64)
    return Decisions(task, tuple(labels), truth, scores, predicted)


def matrices(targets: ArrayLike, confidences: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Both as arrays. DataError: there is no picture, or the two have other shapes."""
    truth, scores = np.asarray(targets).astype(bool), np.asarray(confidences, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != scores.shape or not len(truth):
        raise DataError(
            f"metrics need targets and confidences of one shape [pictures, labels] with at least one picture, got "
            f"{truth.shape} and {scores.shape}: give the split at least one picture."
        )
    return truth, scores
