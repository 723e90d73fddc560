"""Which settings were tried, how far each came, and what made a difference."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from labelmill.evaluate.report.words import METRIC_WORDS, number
from labelmill.page.curves import Curve, curve_chart, key
from labelmill.page.document import Section, figures, table

__all__ = ["search_section"]

_BEST, _OTHERS = 3, 1


def search_section(findings: Mapping[str, Any]) -> Section | None:
    """A chart a field that is a number, the curve of every trial, and a row for each, best first."""
    search = findings.get("search")
    if search is None:
        return None
    ended = [trial for trial in search["trials"] if trial["metric"] is not None]
    word = f"Validation {METRIC_WORDS[search['metric']]}"
    charts = [(_epochs(search, ended, word), f"{word} by epoch, every trial")] if ended else []
    charts += [
        (chart, f"{word} over {escape(field)}")
        for field, scale in search["fields"].items()
        if (chart := _over(search, ended, field, scale, word))
    ]
    legend = key(_BEST, "the trial that became the bundle") + key(_OTHERS, "the others")
    body = f"<p>{len(search['trials'])} settings were tried. {legend}</p>{figures(charts)}{_table(search, word)}"
    return Section("search", "Search", body)


def _epochs(search: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], word: str) -> str:
    longest = max(len(trial["curve"]) for trial in trials)
    curves = [
        Curve([(float(epoch), value) for epoch, value in enumerate(trial["curve"], start=1)], _colour(search, trial))
        for trial in sorted(trials, key=lambda trial: trial["number"] == search["best"])
    ]
    ticks = [(float(epoch), str(epoch)) for epoch in sorted({1, (1 + longest) // 2, longest})]
    return curve_chart(curves, f"{word} by epoch", x_ticks=ticks)


def _over(
    search: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], field: str, scale: str | None, word: str
) -> str:
    """A dot a trial over the value that it had; nothing for what is no number."""
    values = [trial["values"][field] for trial in trials]
    if len(set(map(str, values))) < 2 or not all(_is_number(value) for value in values):
        return ""
    on_axis = math.log10 if scale == "log" and min(values) > 0 else float
    dots = [
        Curve([], _colour(search, trial), dots=[(on_axis(value), trial["metric"], _said(trial))])
        for trial, value in zip(trials, values, strict=True)
    ]
    return curve_chart(dots, f"{word} over {escape(field)}", x_ticks=_ticks(min(values), max(values), on_axis))


def _ticks(low: float, high: float, on_axis: Callable[[float], float]) -> list[tuple[float, str]]:
    """The ends of an axis, a little beyond the values, and its middle."""
    start, end = on_axis(low), on_axis(high)
    margin, middle = (end - start) * 0.04, (start + end) / 2
    between = 10**middle if on_axis is math.log10 else middle
    return [(start - margin, f"{low:.3g}"), (middle, f"{between:.2g}"), (end + margin, f"{high:.3g}")]


def _table(search: Mapping[str, Any], word: str) -> str:
    fields = list(search["fields"])
    order = sorted(search["trials"], key=lambda trial: (trial["metric"] is None, -(trial["metric"] or 0.0)))
    rows = [
        [
            str(trial["number"]),
            *(escape(_value(trial["values"][field])) for field in fields),
            number(trial["metric"]),
            str(trial["epochs"]),
            _outcome(search, trial),
        ]
        for trial in order
    ]
    head = ["trial", *(escape(field) for field in fields), word.lower(), "epochs", ""]
    return f'<div class="sticky trials">{table(head, rows)}</div>'


def _outcome(search: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    if trial["number"] == search["best"]:
        return '<b class="good">best</b>'
    if trial["failure"]:
        return f'<span class="bad">failed: {escape(trial["failure"])}</span>'
    return "stopped early" if trial["stopped_early"] else ""


def _said(trial: Mapping[str, Any]) -> str:
    values = ", ".join(f"{field} {_value(value)}" for field, value in trial["values"].items())
    return escape(f"trial {trial['number']}: {values}: {number(trial['metric'])}")


def _colour(search: Mapping[str, Any], trial: Mapping[str, Any]) -> int:
    return _BEST if trial["number"] == search["best"] else _OTHERS


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
