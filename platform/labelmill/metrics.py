"""How good the answers are, per label and overall, and where the thresholds belong. numpy and scikit-learn only.

Targets and confidences are matrices [N, L], one row a picture, one column a label, for every task: binary has one
column, multi_class is one-hot. A number that is not defined (the precision of a label never predicted) is None, never
NaN and never a zero that looks like a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve

from labelmill.errors import DataError

__all__ = ["THRESHOLD_WITHOUT_POSITIVES", "Thresholds", "choose_thresholds", "evaluate"]

THRESHOLD_WITHOUT_POSITIVES = 0.5


@dataclass(frozen=True, slots=True)
class Thresholds:
    """One threshold a label, in the order of the columns; `without_positives` are columns that had nothing to go by."""

    values: tuple[float, ...]
    without_positives: tuple[int, ...]


def choose_thresholds(targets: ArrayLike, confidences: ArrayLike) -> Thresholds:
    """The threshold of best F1 for each label, on validation pictures.

    It lies midway between the lowest confidence it accepts and the highest it refuses, so that rounding in another
    engine flips no answer; of thresholds with equal F1 the one nearest to 0.5 counts. A label without a positive
    picture gets 0.5 and is named in `without_positives`.
    """
    truth, scores = _matrices(targets, confidences)
    without = tuple(int(column) for column in np.flatnonzero(~truth.any(axis=0)))
    values = tuple(
        THRESHOLD_WITHOUT_POSITIVES if column in without else _best_f1_threshold(truth[:, column], scores[:, column])
        for column in range(truth.shape[1])
    )
    return Thresholds(values=values, without_positives=without)


def evaluate(
    task: str, labels: Sequence[str], targets: ArrayLike, confidences: ArrayLike, thresholds: Sequence[float]
) -> dict[str, Any]:
    """Metrics as plain JSON values.

    num_pictures; accuracy (multi_label: all labels of a picture right, subset accuracy); macro_f1 (mean over the
    labels where it is defined) and micro_f1; map (mean average precision over the labels with positives); per_label:
    for each label precision, recall, f1, average_precision, support (positive pictures), predicted. `thresholds` hold
    one value a label; multi_class takes the top label and ignores them.
    """
    truth, scores = _matrices(targets, confidences)
    predicted = _predictions(task, scores, thresholds)
    per_label = {
        label: _label_metrics(truth[:, column], predicted[:, column], scores[:, column])
        for column, label in enumerate(labels)
    }
    return {
        "num_pictures": len(truth),
        "accuracy": float((truth == predicted).all(axis=1).mean()),
        "macro_f1": _mean([row["f1"] for row in per_label.values()]),
        "micro_f1": _f1(truth, predicted),
        "map": _mean([row["average_precision"] for row in per_label.values()]),
        "per_label": per_label,
    }


def _matrices(targets: ArrayLike, confidences: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, scores = np.asarray(targets).astype(bool), np.asarray(confidences, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != scores.shape or not len(truth):
        raise DataError(
            f"metrics need targets and confidences of one shape [pictures, labels] with at least one picture, got "
            f"{truth.shape} and {scores.shape}: give the split at least one picture."
        )
    return truth, scores


def _predictions(task: str, scores: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    if task == "multi_class":
        top: NDArray[np.bool_] = np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]
        return top
    over: NDArray[np.bool_] = scores >= np.asarray(thresholds, dtype=np.float64)
    return over


def _best_f1_threshold(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    precision, recall, accepted = precision_recall_curve(truth, scores)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], np.finfo(np.float64).tiny)
    below = np.concatenate(([0.0], accepted[:-1]))
    midways = (below + accepted) / 2
    best = midways[f1 >= f1.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def _label_metrics(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], scores: NDArray[np.float64]
) -> dict[str, float | int | None]:
    hits, support, claimed = int((truth & predicted).sum()), int(truth.sum()), int(predicted.sum())
    return {
        "precision": hits / claimed if claimed else None,
        "recall": hits / support if support else None,
        "f1": _f1(truth, predicted),
        "average_precision": float(average_precision_score(truth, scores)) if support else None,
        "support": support,
        "predicted": claimed,
    }


def _f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float | None:
    """2 TP / (2 TP + FP + FN): defined as soon as the label is there or was predicted."""
    either = int(truth.sum()) + int(predicted.sum())
    return 2 * int((truth & predicted).sum()) / either if either else None


def _mean(values: Sequence[float | int | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
