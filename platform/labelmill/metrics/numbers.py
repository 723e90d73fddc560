"""The numbers themselves, over pictures that count a given number of times.

What `evaluate` reports and what the bootstrap draws again and again come from these same lines: `weights` [R, N] say
how often each of N pictures counts in each of R draws, and the results are [R] or [R, L]. NaN stands for "not defined".
"""

import numpy as np
from numpy.typing import NDArray

from labelmill.metrics.decisions import Decisions

__all__ = ["Numbers", "counted", "mean_over_labels", "ranked"]

Numbers = dict[str, NDArray[np.float64]]

_TOP = (3, 5)


def counted(decisions: Decisions, weights: NDArray[np.float64]) -> tuple[Numbers, Numbers]:
    """What follows from the decisions: overall [R], and for each label [R, L]."""
    truth, predicted = decisions.truth, decisions.predicted
    hits, support, claimed = (weights @ cells.astype(np.float64) for cells in (truth & predicted, truth, predicted))
    total = weights.sum(axis=1)
    precision, recall, f1 = _ratio(hits, claimed), _ratio(hits, support), _ratio(2 * hits, support + claimed)
    # A label that was there and never found has no precision, but it is no reason to call the others' the mean.
    counting = {"precision": np.where((claimed == 0) & (support > 0), 0.0, precision), "recall": recall, "f1": f1}
    overall = {
        "accuracy": _ratio(weights @ (truth == predicted).all(axis=1), total),
        "balanced_accuracy": _balanced(
            decisions.task, recall, total[:, None] - support - claimed + hits, total, support
        ),
        **{f"top_{k}_accuracy": _ratio(weights @ right, total) for k, right in _in_top(decisions).items()},
        **{f"macro_{name}": mean_over_labels(values) for name, values in counting.items()},
        "micro_precision": _ratio(hits.sum(axis=1), claimed.sum(axis=1)),
        "micro_recall": _ratio(hits.sum(axis=1), support.sum(axis=1)),
        "micro_f1": _ratio(2 * hits.sum(axis=1), (support + claimed).sum(axis=1)),
        **{f"weighted_{name}": _weighted(values, support) for name, values in counting.items()},
    }
    return overall, {"precision": precision, "recall": recall, "f1": f1}


def ranked(truth: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64]) -> Numbers:
    """What follows from the order of one label's confidences [N] alone, each [R].

    average_precision sums precision over the steps of recall, as scikit-learn does; pr_auc joins the same points by
    straight lines, which flatters (Davis and Goadrich, 2006); roc_auc is the chance that a picture with the label ranks
    above one without.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # the last of each run of equal confidences
    drawn = weights[:, order]
    found = np.cumsum(drawn * truth[order], axis=1)[:, ends]
    taken = np.cumsum(drawn, axis=1)[:, ends]
    positives, wrong = found[:, -1], taken - found
    precision = np.where(taken > 0, found / np.maximum(taken, 1e-300), 1.0)
    steps = np.diff(found, axis=1, prepend=0.0)
    above = (found + found - steps) / 2
    return {
        "average_precision": _ratio((steps * precision).sum(axis=1), positives),
        "pr_auc": _ratio((steps * (precision + _before(precision)) / 2).sum(axis=1), positives),
        "roc_auc": _ratio((np.diff(wrong, axis=1, prepend=0.0) * above).sum(axis=1), positives * wrong[:, -1]),
    }


def mean_over_labels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R, L] -> [R], over the labels for which the number is defined."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def _balanced(
    task: str,
    recall: NDArray[np.float64],
    refused: NDArray[np.float64],
    total: NDArray[np.float64],
    support: NDArray[np.float64],
) -> NDArray[np.float64]:
    if task == "multi_class":
        return mean_over_labels(recall)
    return mean_over_labels((recall + _ratio(refused, total[:, None] - support)) / 2)


def _in_top(decisions: Decisions) -> dict[int, NDArray[np.bool_]]:
    """k -> whether the true label [N] is among the k of highest confidence; of equal ones the first counts."""
    num_labels = decisions.truth.shape[1]
    wanted = [k for k in _TOP if decisions.task == "multi_class" and k < num_labels]
    if not wanted:
        return {}
    true = decisions.truth.argmax(axis=1)
    theirs = np.take_along_axis(decisions.confidences, true[:, None], axis=1)
    ahead = (decisions.confidences > theirs) | (
        (decisions.confidences == theirs) & (np.arange(num_labels) < true[:, None])
    )
    return {k: ahead.sum(axis=1) < k for k in wanted}


def _weighted(values: NDArray[np.float64], support: NDArray[np.float64]) -> NDArray[np.float64]:
    return _ratio(np.where(support > 0, values * support, 0.0).sum(axis=1), support.sum(axis=1))


def _before(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point before each: a curve of precision starts at 1."""
    return np.concatenate([np.ones((len(precision), 1)), precision[:, :-1]], axis=1)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Part of a whole, NaN where there is none."""
    ratio: NDArray[np.float64] = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=ratio, where=np.asarray(whole) > 0)
    return ratio
