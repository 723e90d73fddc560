"""How training went and how good its result is: one page that needs nothing else, for a browser or a phone."""

import json
from html import escape
from typing import Any

from labelmill.model.bundle import BundleDraft
from labelmill.page.charts import Line, line_chart
from labelmill.page.document import document, figures, table, tiles
from labelmill.train.progress import METRIC_BY_TASK, Progress

__all__ = ["REPORT_NAME", "report_html"]

REPORT_NAME = "report.html"

_MEASURED_ON = {
    "test": "Measured on the test pictures, which training never saw.",
    "validation": "There are no test pictures: these numbers come from the validation pictures, which also chose the "
    "epoch and the thresholds, and so flatter the model.",
}
_METRIC_WORDS = {"map": "mean average precision", "accuracy": "accuracy"}


def report_html(name: str, draft: BundleDraft, progress: Progress | None) -> str:
    """The page for a measured draft. Everything that comes from outside (labels, addresses, the spec) is escaped."""
    split = draft.metrics["headline"]["split"]
    versions = ", ".join(f"{library} {number}" for library, number in draft.library_versions.items())
    body = [
        f"<h1>{escape(name)}</h1><p>{escape(draft.architecture)} at {draft.preprocessing.image_size_px} px, "
        f"task {draft.task}, {len(draft.labels)} labels. {_MEASURED_ON[split]}</p>",
        _tiles(draft),
        _curves(draft, progress) if progress else "",
        f"<h2>Labels, weakest first ({split} pictures)</h2>{_label_table(draft, split)}",
        f"<h2>Pictures</h2>{_picture_table(draft)}{_unreadable(draft)}",
        f"<h2>Spec</h2><pre>{escape(json.dumps(draft.spec, indent=2, ensure_ascii=False))}</pre>",
        f"<h2>Made with</h2><p>{escape(versions)}</p>",
    ]
    return document(f"{name}: training report", body)


def _tiles(draft: BundleDraft) -> str:
    metrics = draft.metrics
    measured = metrics[metrics["headline"]["split"]]
    return tiles(
        [
            (_number(measured["map"]), "mean average precision"),
            (
                _number(measured["accuracy"]),
                "accuracy, all labels right" if draft.task == "multi_label" else "accuracy",
            ),
            (_number(measured["macro_f1"]), "F1, mean over labels"),
            (f"{metrics['best_epoch']} of {metrics['epochs']}", "best epoch"),
            (f"{sum(metrics['num_pictures'].values()):,}", "pictures"),
        ]
    )


def _curves(draft: BundleDraft, progress: Progress) -> str:
    best = float(progress.best.number)
    steps = [(epoch, point, epoch.curve[-1][0]) for epoch in progress.epochs for point in epoch.curve]
    losses = [(epoch.number - 1 + step / last, loss) for epoch, (step, loss, _), last in steps]
    rates = [(epoch.number - 1 + step / last, rate) for epoch, (step, _, rate), last in steps]
    scores = [(float(epoch.number), epoch.metric) for epoch in progress.epochs]
    word = _METRIC_WORDS[METRIC_BY_TASK[draft.task]]
    charts = [
        (Line(losses), "Training loss by epoch"),
        (Line(scores, mark=best), f"Validation {word} by epoch; the dot is the epoch that was kept"),
        (Line(rates), "Learning rate by epoch"),
    ]
    return f"<h2>Training</h2>{figures([(line_chart(line, what), what) for line, what in charts])}"


def _label_table(draft: BundleDraft, split: str) -> str:
    per_label = draft.metrics[split]["per_label"]
    thresholds = dict(zip(draft.labels, draft.thresholds, strict=True)) if draft.thresholds else {}
    rows = [
        [
            escape(label),
            _number(row["f1"]),
            _number(row["precision"]),
            _number(row["recall"]),
            _number(row["average_precision"]),
            _number(thresholds.get(label)),
            f"{row['support']:,}",
        ]
        for label, row in sorted(per_label.items(), key=lambda item: item[1]["f1"] or 0.0)
    ]
    return table(["label", "F1", "precision", "recall", "average precision", "threshold", "pictures"], rows)


def _picture_table(draft: BundleDraft) -> str:
    sizes, positives = draft.metrics["num_pictures"], draft.metrics["num_positives"]
    rows = [["all", *(f"{count:,}" for count in sizes.values())]]
    rows += [[escape(label), *(f"{counts[split]:,}" for split in sizes)] for label, counts in positives.items()]
    return table(["label", *sizes], rows)


def _unreadable(draft: BundleDraft) -> str:
    count, shown = draft.metrics["num_unreadable"], draft.metrics["unreadable"]
    if not count:
        return "<p>Every picture could be read.</p>"
    rows = [[escape(uri), escape(reason)] for uri, reason in shown.items()]
    more = f", the first {len(shown)}" if count > len(shown) else ""
    listed = table(["picture", "reason"], rows)
    return f'<h2>Left out: {count} pictures that cannot be read{more}</h2><div class="wide">{listed}</div>'


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"
