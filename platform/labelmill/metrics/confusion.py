"""Which labels are taken for which, and which come together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelmill.metrics.decisions import Decisions, decide

__all__ = ["MAX_LABELS_DRAWN", "confusion"]

MAX_LABELS_DRAWN = 200  # a matrix of more can neither be looked at nor sent to a phone
_NUM_PAIRS = 50


def confusion(
    task: str, labels: Sequence[str], targets: ArrayLike, confidences: ArrayLike, thresholds: Sequence[float]
) -> dict[str, Any]:
    """`counts`, `pairs`, `together` and `predicted_together` as described in `labelmill.metrics`."""
    decisions = decide(task, labels, targets, confidences, thresholds)
    found: dict[str, Any] = {"counts": None, "pairs": [], "together": None, "predicted_together": None}
    drawn = len(decisions.labels) <= MAX_LABELS_DRAWN
    if task == "multi_class":
        return found | {
            "counts": _pictures(decisions.truth, decisions.predicted) if drawn else None,
            "pairs": _pairs(decisions),
        }
    if task == "multi_label" and drawn:
        return found | {
            "together": _pictures(decisions.truth, decisions.truth),
            "predicted_together": _pictures(decisions.predicted, decisions.predicted),
        }
    return found


def _pairs(decisions: Decisions) -> list[dict[str, str | int]]:
    num_labels, labels = len(decisions.labels), decisions.labels
    true, given = decisions.truth.argmax(axis=1), decisions.predicted.argmax(axis=1)
    codes, counts = np.unique((true * num_labels + given)[true != given], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_NUM_PAIRS]
    return [
        {"label": labels[code // num_labels], "predicted": labels[code % num_labels], "count": int(count)}
        for code, count in zip(codes[order].tolist(), counts[order], strict=True)
    ]


def _pictures(rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> list[list[int]]:
    """How many pictures have the row's label in the one and the column's in the other."""
    # In float64, whose sums are exact here and go through BLAS; numpy multiplies whole numbers one by one.
    counts = rows.T.astype(np.float64) @ columns.astype(np.float64)
    return [[int(count) for count in row] for row in counts]
