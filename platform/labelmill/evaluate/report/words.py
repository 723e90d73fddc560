"""The same words and figures for the same thing in every section."""

from collections.abc import Mapping, Sequence

__all__ = ["HEADLINES", "METRIC_WORDS", "between", "number", "with_interval"]

HEADLINES: Mapping[str, str] = {"binary": "map", "multi_label": "map", "multi_class": "accuracy"}

METRIC_WORDS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "top_3_accuracy": "accuracy of the best three",
    "top_5_accuracy": "accuracy of the best five",
    "map": "mean average precision",
    "pr_auc": "area under precision and recall",
    "roc_auc": "area under ROC",
    "macro_precision": "precision, mean over labels",
    "macro_recall": "recall, mean over labels",
    "macro_f1": "F1, mean over labels",
    "micro_precision": "precision, all decisions",
    "micro_recall": "recall, all decisions",
    "micro_f1": "F1, all decisions",
    "weighted_precision": "precision, weighted by pictures",
    "weighted_recall": "recall, weighted by pictures",
    "weighted_f1": "F1, weighted by pictures",
    "ece": "expected calibration error",
}


def number(value: float | None) -> str:
    """Three digits; a dash for what is not defined."""
    return "-" if value is None else f"{value:.3f}"


def between(ends: Sequence[float] | None) -> str:
    """The ends of a confidence interval."""
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def with_interval(value: float | None, ends: Sequence[float] | None) -> str:
    return number(value) + (f" <small>{between(ends)}</small>" if ends else "")
