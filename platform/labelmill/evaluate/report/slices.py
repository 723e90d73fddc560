"""Where the model is worse: parts of the pictures, by what the labels file calls their slice."""

from collections.abc import Mapping
from html import escape
from typing import Any

from labelmill.evaluate.report.words import HEADLINES, METRIC_WORDS, number, with_interval
from labelmill.page.charts import row_bar
from labelmill.page.document import Section, table

__all__ = ["slice_section"]

_SHOWN = 100


def slice_section(evaluation: Mapping[str, Any]) -> Section | None:
    slices = evaluation["slices"]
    if not slices:
        return None
    name = HEADLINES[evaluation["task"]]
    overall = evaluation["metrics"][name]
    rows = [_row(slice_, found, name, overall) for slice_, found in list(slices.items())[:_SHOWN]]
    word = METRIC_WORDS[name]
    head = ["slice", "", word, "", "F1, mean", "calibration error", "pictures"]
    more = f"<p>And {len(slices) - _SHOWN:,} smaller ones, in evaluation.json.</p>" if len(slices) > _SHOWN else ""
    words = f"<p>All pictures: {word} {number(overall)}. Marked are slices whose whole interval lies below.</p>"
    return Section("slices", "Slices", f'{words}<div class="sticky bars">{table(head, rows)}</div>{more}')


def _row(slice_: str, found: Mapping[str, Any], name: str, overall: float | None) -> list[str]:
    value, ends = found[name], found["intervals"][name]
    is_worse = overall is not None and ends is not None and ends[1] < overall
    return [
        escape(slice_) or "<i>none</i>",
        row_bar(value or 0.0, ends),
        with_interval(value, ends),
        '<span class="bad">worse</span>' if is_worse else "",
        number(found["macro_f1"]),
        number(found["ece"]),
        f"{found['num_pictures']:,}",
    ]
