"""What every threshold would give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelmill.metrics.confusion import MAX_LABELS_DRAWN
from labelmill.metrics.decisions import matrices

__all__ = ["threshold_curves"]

_NUM_EVEN, _NUM_BY_RANK = 33, 32


def threshold_curves(labels: Sequence[str], targets: ArrayLike, confidences: ArrayLike) -> dict[str, Any]:
    """Precision, recall, F1 and the rate of false positives over thresholds, as described in `labelmill.metrics`.

    The thresholds are spread over 0 to 1 evenly and over the confidences of the label's pictures by rank, since a rare
    label may live below 0.1.
    """
    truth, scores = matrices(targets, confidences)
    commonest = np.argsort(-truth.sum(axis=0), kind="stable")[:MAX_LABELS_DRAWN]
    return {labels[column]: _curve(truth[:, column], scores[:, column]) for column in sorted(commonest.tolist())}


def _curve(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> dict[str, list[float | None]]:
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    by_rank = np.quantile(positives, np.linspace(0, 1, _NUM_BY_RANK)) if len(positives) else np.zeros(0)
    thresholds = np.unique(np.concatenate([np.linspace(0, 1, _NUM_EVEN), by_rank]).round(6))
    hits = len(positives) - np.searchsorted(positives, thresholds)
    wrong = len(negatives) - np.searchsorted(negatives, thresholds)
    return {
        "threshold": thresholds.tolist(),
        "precision": _shares(hits, hits + wrong),
        "recall": _shares(hits, np.full(len(hits), len(positives))),
        "f1": _shares(2 * hits, hits + wrong + len(positives)),
        "false_positive_rate": _shares(wrong, np.full(len(wrong), len(negatives))),
    }


def _shares(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> list[float | None]:
    pairs = zip(parts.tolist(), wholes.tolist(), strict=True)
    return [round(part / whole, 6) if whole else None for part, whole in pairs]
