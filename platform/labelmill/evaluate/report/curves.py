"""What other thresholds would give."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from labelmill.evaluate.report.labels import weakest_first
from labelmill.page.curves import Curve, Mark, curve_chart, key
from labelmill.page.document import Section, figures, folded

__all__ = ["threshold_section"]

_SHARES = [(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")]
_OVER_THRESHOLD = (("precision", 1), ("recall", 2), ("f1", 3))
_COLOURS = (1, 3, 2, 4, 7, 5, 8)
_SHOWN_AT_ONCE, _MOST_DRAWN = 6, 60


def threshold_section(evaluation: Mapping[str, Any]) -> Section | None:
    """Ranking curves of the weakest labels, and what each threshold gives."""
    curves = evaluation["threshold_curves"]
    labels = [label for label in weakest_first(evaluation) if _has_positives(curves.get(label))][:_MOST_DRAWN]
    if not labels:
        return None
    legend = "".join(key(colour, {"f1": "F1"}.get(name, name)) for name, colour in _OVER_THRESHOLD)
    if evaluation["task"] == "multi_class":
        words = "Each label against the rest, by the confidence from which an answer counts."
    else:
        words = "The dotted line is the threshold that the bundle holds, chosen on the validation pictures."
    charts = [_over_threshold(evaluation, label) for label in labels]
    shown, rest = charts[:_SHOWN_AT_ONCE], charts[_SHOWN_AT_ONCE:]
    body = f"{_rankings(curves, labels[: len(_COLOURS)])}<h3>Over the threshold</h3><p>{words}</p><p>{legend}</p>"
    body += figures(shown, dense=True)
    body += folded(f"{len(rest)} more labels", figures(rest, dense=True)) if rest else ""
    return Section("thresholds", "Thresholds", body)


def _has_positives(curve: Mapping[str, Sequence[float | None]] | None) -> bool:
    return curve is not None and any(value is not None for value in curve["recall"])


def _over_threshold(evaluation: Mapping[str, Any], label: str) -> tuple[str, str]:
    curve = evaluation["threshold_curves"][label]
    lines = [Curve(_points(curve["threshold"], curve[name]), colour) for name, colour in _OVER_THRESHOLD]
    thresholds = dict(zip(evaluation["labels"], evaluation["thresholds"], strict=False))
    marks = [Mark(thresholds[label], f"{thresholds[label]:.2f}")] if label in thresholds else []
    name = escape(label)
    words = f"Precision, recall and F1 of {name} over the threshold"
    return curve_chart(lines, words, x_ticks=_SHARES, y=(0.0, 1.0), marks=marks), name


def _rankings(curves: Mapping[str, Any], labels: Sequence[str]) -> str:
    colours = dict(zip(labels, _COLOURS, strict=False))

    def lines(x: str, y: str) -> list[Curve]:
        return [Curve(_points(curves[label][x], curves[label][y]), colour) for label, colour in colours.items()]

    def chart(lines: Sequence[Curve], words: str) -> tuple[str, str]:
        return curve_chart(lines, words, x_ticks=_SHARES, y=(0.0, 1.0)), words

    chance = Curve([(0.0, 0.0), (1.0, 1.0)], 0, dashed=True)
    charts = [
        chart(lines("recall", "precision"), "Precision over recall"),
        chart([chance, *lines("false_positive_rate", "recall")], "Recall over the rate of false positives (ROC)"),
    ]
    legend = "".join(key(colour, escape(label)) for label, colour in colours.items())
    some = "" if len(labels) == len(curves) else f"The {len(labels)} weakest labels: "
    return f"<p>{some}{legend}</p>{figures(charts)}"


def _points(xs: Sequence[float | None], ys: Sequence[float | None]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None]
