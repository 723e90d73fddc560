"""How good the model is on each label."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from labelmill.evaluate.report.words import between, number
from labelmill.page.charts import row_bar
from labelmill.page.document import Section, folded, table

__all__ = ["FEW_PICTURES", "label_section", "weakest_first"]

FEW_PICTURES = 10  # with fewer a label's own numbers say next to nothing
_SHOWN_AT_ONCE = 40
_HEAD = ("label", "", "F1", "precision", "recall", "average precision", "ROC AUC", "pictures", "threshold")


def label_section(evaluation: Mapping[str, Any]) -> Section:
    rows = [_row(evaluation, label) for label in weakest_first(evaluation)]
    shown, rest = rows[:_SHOWN_AT_ONCE], rows[_SHOWN_AT_ONCE:]
    body = _table(shown) + (folded(f"{len(rest):,} more labels", _table(rest)) if rest else "")
    return Section("labels", "Labels", f"<p>Weakest first; the line over a bar is its 95% interval.</p>{body}")


def weakest_first(evaluation: Mapping[str, Any]) -> list[str]:
    per_label = evaluation["metrics"]["per_label"]
    return sorted(per_label, key=lambda label: (per_label[label]["f1"] or 0.0, label))


def _table(rows: Sequence[Sequence[str]]) -> str:
    return f'<div class="sticky bars">{table(_HEAD[: len(rows[0])], rows)}</div>'


def _row(evaluation: Mapping[str, Any], label: str) -> list[str]:
    found = evaluation["metrics"]["per_label"][label]
    ends = evaluation["intervals"]["per_label"][label]["f1"]
    thresholds = dict(zip(evaluation["labels"], evaluation["thresholds"], strict=False))  # multi_class: none
    threshold = [number(thresholds[label])] if thresholds else []
    few = f' <small class="bad">only {found["support"]}</small>' if found["support"] < FEW_PICTURES else ""
    numbers = [number(found[name]) for name in ("precision", "recall", "average_precision", "roc_auc")]
    f1 = f'<span title="{between(ends)}">{number(found["f1"])}</span>'
    bar = row_bar(found["f1"] or 0.0, ends)
    return [escape(label) + few, bar, f1, *numbers, f"{found['support']:,}", *threshold]
