"""What is taken for what, and what comes together."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from labelmill.evaluate.report.labels import weakest_first
from labelmill.page.charts import share_bar
from labelmill.page.curves import key
from labelmill.page.document import Section, beside, figures, table
from labelmill.page.matrix import Shade, matrix

__all__ = ["confusion_section"]

_RIGHT, _WRONG, _MISSED, _TOGETHER = 2, 3, 7, 1  # colours of the page
_MOST_DRAWN, _PAIRS_SHOWN, _LABELS_SHOWN = 30, 12, 40


def confusion_section(evaluation: Mapping[str, Any]) -> Section | None:
    match evaluation["task"]:
        case "multi_class":
            return _multi_class(evaluation)
        case "multi_label":
            return _multi_label(evaluation)
    return _binary(evaluation)


def _multi_class(evaluation: Mapping[str, Any]) -> Section | None:
    counts, pairs, labels = evaluation["confusion"]["counts"], evaluation["confusion"]["pairs"], evaluation["labels"]
    body = ""
    if counts is not None:
        shown = _most_confused(counts)
        if len(shown) < len(labels):
            body += f"<p>The {len(shown)} of {len(labels)} labels that are confused most.</p>"
        cells = [[counts[row][column] for column in shown] for row in shown]
        body += _counts(cells, [sum(counts[row]) for row in shown], [labels[index] for index in shown])
    if pairs:
        rows = [[f"{escape(pair['label'])} as {escape(pair['predicted'])}", f"{pair['count']:,}"] for pair in pairs]
        body = beside(body, table(["most frequent confusions", "pictures"], rows[:_PAIRS_SHOWN]))
    return Section("confusion", "Confusion", body) if body else None


def _most_confused(counts: Sequence[Sequence[int]]) -> list[int]:
    """Where the matrix is too large to be looked at, those with most mistakes; in the order of the labels."""
    columns = [sum(column) for column in zip(*counts, strict=True)]
    wrong = [sum(row) + columns[index] - 2 * row[index] for index, row in enumerate(counts)]
    worst = sorted(range(len(counts)), key=lambda index: -wrong[index])[:_MOST_DRAWN]
    return sorted(worst)


def _counts(cells: Sequence[Sequence[int]], totals: Sequence[int], names: Sequence[str]) -> str:
    """Shades by the share of a row: a label of few pictures shows its mistakes as clearly as one of many."""

    def shade(row: int, column: int) -> Shade:
        count, total = cells[row][column], totals[row]
        words = f"{count:,} of {total:,} pictures of {escape(names[row])} were called {escape(names[column])}"
        return Shade(_strength(count, total), f"{count:,}" if count else "", words, _RIGHT if row == column else _WRONG)

    rows = [[shade(row, column) for column in range(len(names))] for row in range(len(names))]
    return matrix(rows, names, "Confusion matrix", row_word="true label", column_word="answered")


def _strength(count: int, total: int) -> float:
    """By the square root, or a confusion of one in twenty could not be seen."""
    return (count / total) ** 0.5 if total else 0.0


def _binary(evaluation: Mapping[str, Any]) -> Section:
    (label,) = evaluation["labels"]
    found = evaluation["metrics"]["per_label"][label]
    cells = [
        [found["true_positives"], found["false_negatives"]],
        [found["false_positives"], found["true_negatives"]],
    ]
    return Section("confusion", "Confusion", _counts(cells, [sum(row) for row in cells], [label, f"not {label}"]))


def _multi_label(evaluation: Mapping[str, Any]) -> Section:
    legend = "".join(
        key(colour, words, "square")
        for colour, words in ((_RIGHT, "found"), (_MISSED, "missed"), (_WRONG, "given wrongly"))
    )
    shown = weakest_first(evaluation)[:_LABELS_SHOWN]
    rows = [_of_label(label, evaluation["metrics"]["per_label"][label]) for label in shown]
    head = ["label", "", "found", "missed", "given wrongly", "rightly left out"]
    body = f'<p>{legend}</p><div class="sticky bars">{table(head, rows)}</div>{_together(evaluation)}'
    return Section("confusion", "Confusion", body)


def _of_label(label: str, found: Mapping[str, int]) -> list[str]:
    """A label's own confusion matrix, in a row."""
    hits, missed, wrong = found["true_positives"], found["false_negatives"], found["false_positives"]
    whole = max(1, hits + missed + wrong)
    shares = [(f"c{_RIGHT}", hits / whole), (f"c{_MISSED}", missed / whole), (f"c{_WRONG}", wrong / whole)]
    bar = f'<div class="thin">{share_bar(shares, f"{hits} found, {missed} missed, {wrong} given wrongly")}</div>'
    return [escape(label), bar, f"{hits:,}", f"{missed:,}", f"{wrong:,}", f"{found['true_negatives']:,}"]


def _together(evaluation: Mapping[str, Any]) -> str:
    true, predicted = evaluation["confusion"]["together"], evaluation["confusion"]["predicted_together"]
    labels = evaluation["labels"]
    if true is None or len(labels) < 2:
        return ""
    shown = sorted(range(len(labels)), key=lambda index: -sum(true[index]))[:_MOST_DRAWN]
    shown.sort()
    names = [labels[index] for index in shown]
    pair = [
        (_occurrence(true, shown, names), "In the labels: shade is the share of the row's pictures"),
        (_occurrence(predicted, shown, names), "In the answers"),
    ]
    some = f"<p>The {len(shown)} most frequent labels.</p>" if len(shown) < len(labels) else ""
    return f"<h3>Which labels come together</h3>{some}{figures(pair)}"


def _occurrence(counts: Sequence[Sequence[int]], shown: Sequence[int], names: Sequence[str]) -> str:
    def shade(row: int, column: int) -> Shade:
        count, total = counts[shown[row]][shown[column]], counts[shown[row]][shown[row]]
        words = f"{count:,} of {total:,} pictures with {escape(names[row])} have {escape(names[column])}"
        share = count / total if total and row != column else 0.0
        return Shade(share, f"{count:,}", words, _TOGETHER)

    rows = [[shade(row, column) for column in range(len(names))] for row in range(len(names))]
    return matrix(rows, names, "Labels that come together", row_word="of the pictures with", column_word="have")
