"""The metrics of one set of answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelmill.metrics.decisions import Decisions, decide
from labelmill.metrics.numbers import Numbers, counted, mean_over_labels, ranked
from labelmill.metrics.reliability import calibration_errors, reliability

__all__ = ["MEANS_OF_RANKED", "evaluate", "rankings"]

MEANS_OF_RANKED = {"map": "average_precision", "pr_auc": "pr_auc", "roc_auc": "roc_auc"}
_ONLY_MULTI_CLASS = ("top_3_accuracy", "top_5_accuracy")


def evaluate(
    task: str, labels: Sequence[str], targets: ArrayLike, confidences: ArrayLike, thresholds: Sequence[float]
) -> dict[str, Any]:
    """The metrics described in `labelmill.metrics`, as plain JSON values.

    `thresholds` hold one value a label; multi_class takes the top label and ignores them. Macro numbers are means over
    the labels that stand in the pictures or were predicted: a label that is there and never predicted has precision
    None in its own row, and counts as 0 in the mean, as in scikit-learn; one that is in no picture has no recall.
    """
    decisions = decide(task, labels, targets, confidences, thresholds)
    once = np.ones((1, len(decisions.truth)))
    overall, by_label = counted(decisions, once)
    by_label |= rankings(decisions, once)
    overall |= {name: mean_over_labels(by_label[inner]) for name, inner in MEANS_OF_RANKED.items()}
    numbers = {name: _value(values[0]) for name, values in overall.items()}
    return {
        "num_pictures": len(decisions.truth),
        **dict.fromkeys(_ONLY_MULTI_CLASS),
        **numbers,
        "ece": reliability(task, decisions.truth, decisions.confidences)["ece"],
        "per_label": _rows(decisions, by_label),
    }


def rankings(decisions: Decisions, weights: NDArray[np.float64]) -> Numbers:
    """`ranked` for each label, [R, L]."""
    columns = [
        ranked(decisions.truth[:, column], decisions.confidences[:, column], weights)
        for column in range(len(decisions.labels))
    ]
    return {name: np.stack([column[name] for column in columns], axis=1) for name in columns[0]}


def _rows(decisions: Decisions, by_label: Numbers) -> dict[str, dict[str, float | int | None]]:
    truth, predicted = decisions.truth, decisions.predicted
    errors = calibration_errors(truth, decisions.confidences)
    cells = {
        "support": truth,
        "predicted": predicted,
        "true_positives": truth & predicted,
        "false_positives": ~truth & predicted,
        "false_negatives": truth & ~predicted,
        "true_negatives": ~truth & ~predicted,
    }
    counts = {name: cell.sum(axis=0).tolist() for name, cell in cells.items()}
    return {
        label: {
            **{name: _value(values[0, column]) for name, values in by_label.items()},
            "ece": errors[column],
            **{name: values[column] for name, values in counts.items()},
        }
        for column, label in enumerate(decisions.labels)
    }


def _value(number: np.float64) -> float | None:
    return None if np.isnan(number) else float(number)
