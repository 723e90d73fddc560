"""Whether a confidence of 0.8 is right four times in five."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelmill.metrics.decisions import matrices

__all__ = ["calibration_errors", "reliability"]

_NUM_BINS = 15


def reliability(task: str, targets: ArrayLike, confidences: ArrayLike) -> dict[str, Any]:
    """`ece` and the bins of a reliability diagram, as described in `labelmill.metrics`.

    The expected calibration error is the mean distance of confidence and accuracy over 15 bins of equal width, weighted
    by what falls into each (Guo et al., 2017: On Calibration of Modern Neural Networks).
    """
    truth, scores = matrices(targets, confidences)
    if task == "multi_class":
        top = scores.argmax(axis=1)[:, None]
        truth, scores = np.take_along_axis(truth, top, axis=1), np.take_along_axis(scores, top, axis=1)
    counts, sums, rights = _binned(truth.ravel(), scores.ravel())
    edges = np.linspace(0, 1, _NUM_BINS + 1)
    bins = [
        {
            "low": float(edges[index]),
            "high": float(edges[index + 1]),
            "count": int(counts[index]),
            "confidence": float(sums[index] / counts[index]),
            "accuracy": float(rights[index] / counts[index]),
        }
        for index in np.flatnonzero(counts)
    ]
    return {"ece": _error(counts, sums, rights), "bins": bins}


def calibration_errors(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> list[float]:
    """The expected calibration error of each label by itself."""
    return [_error(*_binned(truth[:, column], scores[:, column])) for column in range(truth.shape[1])]


def _binned(
    truth: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Per bin: how many, the sum of their confidences, and how many are right."""
    bins = np.clip((scores * _NUM_BINS).astype(np.int64), 0, _NUM_BINS - 1)
    counted, sums, rights = (
        np.bincount(bins, weights=values, minlength=_NUM_BINS).astype(np.float64)
        for values in (np.ones(len(bins)), scores, truth)
    )
    return counted, sums, rights


def _error(counts: NDArray[np.float64], sums: NDArray[np.float64], rights: NDArray[np.float64]) -> float:
    return float(np.abs(sums - rights).sum() / counts.sum())
