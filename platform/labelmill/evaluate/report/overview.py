"""What to know first: the numbers that say most, and how sure one may be of them."""

from collections.abc import Mapping
from html import escape
from typing import Any

from labelmill.evaluate.report.words import METRIC_WORDS, between, number, with_interval
from labelmill.page.document import folded, table, tiles

__all__ = ["overview"]

_MEASURED_ON = {
    "test": "Measured on the test pictures, which training never saw.",
    "validation": "There are no test pictures: these numbers come from the validation pictures, which also chose the "
    "epoch and the thresholds, and so flatter the model.",
}
_TILES = {
    "binary": ("map", "macro_f1", "roc_auc", "balanced_accuracy", "ece"),
    "multi_class": ("accuracy", "balanced_accuracy", "macro_f1", "map", "ece"),
    "multi_label": ("map", "macro_f1", "micro_f1", "accuracy", "ece"),
}
_FEW_PICTURES = 30


def overview(evaluation: Mapping[str, Any]) -> str:
    """Where the numbers come from, tiles, and all of them folded away."""
    task, metrics, intervals = evaluation["task"], evaluation["metrics"], evaluation["intervals"]
    words = _words(task)
    cells = [
        (f"{number(metrics[name])}<small>{between(intervals.get(name))}</small>", words[name])
        for name in _TILES[task]
        if metrics[name] is not None
    ]
    rows = [
        [word, with_interval(metrics[name], intervals.get(name))]
        for name, word in words.items()
        if metrics[name] is not None
    ]
    level = f"{intervals['level']:.0%}"
    note = (
        f"<p>The smaller figures are {level} confidence intervals, from {intervals['num_resamples']:,} bootstrap "
        "resamples of the pictures.</p>"
    )
    return f"{_source(evaluation)}{tiles(cells)}{folded('All numbers', table(['', 'value'], rows) + note)}"


def _source(evaluation: Mapping[str, Any]) -> str:
    count, model = evaluation["metrics"]["num_pictures"], evaluation["model"]
    measured = _MEASURED_ON.get(evaluation["split"], "Measured on all labelled pictures that were given.")
    few = f' <b class="bad">Only {count}: read every number with its interval.</b>' if count < _FEW_PICTURES else ""
    task = evaluation["task"].replace("_", "-")
    return (
        f"<p>{escape(model['architecture'])} at {model['image_size_px']} px, {task}, "
        f"{len(evaluation['labels'])} labels, {count:,} pictures. {measured}{few}</p>"
    )


def _words(task: str) -> dict[str, str]:
    """What each metric is called; with several labels a picture, accuracy wants all of them."""
    return {**METRIC_WORDS, **({"accuracy": "accuracy, all labels right"} if task == "multi_label" else {})}
