"""How training went and how good its result is: one page that needs nothing else, for a browser or a phone."""

from collections.abc import Mapping
from html import escape
from typing import Any

from labelmill.evaluate.report import REPORT_NAME, evaluation_sections
from labelmill.evaluate.report.data import data_section, pictures_of
from labelmill.evaluate.report.made import other_section, spec_section
from labelmill.evaluate.report.overview import overview
from labelmill.evaluate.report.pictures import ReportPictures, look_at_mistakes, thumbnails
from labelmill.evaluate.report.search import search_section
from labelmill.evaluate.report.words import METRIC_WORDS, number
from labelmill.model.bundle import Bundle, BundleDraft
from labelmill.page.curves import Curve, Mark, curve_chart, key
from labelmill.page.document import Section, document, figures, folded, sections, table
from labelmill.train.progress import METRIC_BY_TASK, Epoch, Progress

__all__ = ["REPORT_NAME", "report_html", "report_pictures"]

_TRAINING, _VALIDATION = 1, 3


def report_html(
    name: str, draft: BundleDraft, evaluation: Mapping[str, Any], progress: Progress | None, pictures: ReportPictures
) -> str:
    """The page for a measured draft. Everything that comes from outside (labels, addresses, the spec) is escaped."""
    findings = draft.metrics["findings"]
    parts = [
        _training_section(METRIC_BY_TASK[draft.task], progress) if progress and progress.epochs else None,
        *evaluation_sections(evaluation, pictures.looked),
        data_section(draft.metrics, pictures.thumbnails),
        search_section(findings),
        other_section(findings),
        spec_section(draft.spec, draft.library_versions),
    ]
    body = [f"<h1>{escape(name)}</h1>", overview(evaluation), sections([part for part in parts if part])]
    return document(f"{name}: training report", body)


def report_pictures(
    bundle: Bundle, evaluation: Mapping[str, Any], findings: Mapping[str, Any], *, max_pixels: int
) -> ReportPictures:
    """What the page shows: the worst mistakes, explained, and the pictures that the findings name."""
    return ReportPictures(
        look_at_mistakes(bundle, evaluation["mistakes"], max_pixels=max_pixels),
        thumbnails(pictures_of(findings), max_pixels=max_pixels),
    )


def _training_section(metric: str, progress: Progress) -> Section:
    epochs, word = progress.epochs, METRIC_WORDS[metric]
    charts = [
        (_losses(progress), "Loss by epoch"),
        (_metrics(progress, word), f"{word.capitalize()} by epoch; the dot is the epoch that was kept"),
        (_learning_rates(progress), "Learning rate by epoch"),
    ]
    legend = key(_TRAINING, "training pictures") + key(_VALIDATION, "validation pictures")
    rows = folded("All epochs", f'<div class="sticky">{table(_HEAD, [_row(epoch) for epoch in epochs])}</div>')
    return Section("training", "Training", f"<p>{_words(progress)}</p><p>{legend}</p>{figures(charts)}{rows}")


def _words(progress: Progress) -> str:
    kept = f"Epoch {progress.best.number} of {progress.num_epochs} was kept, the best on the validation pictures."
    if progress.departure is None:
        return kept
    return (
        f"{kept} After epoch {progress.departure} the loss on the validation pictures never was lower, though that on "
        "the training pictures still fell: from there on the network learnt its own pictures only."
    )


def _losses(progress: Progress) -> str:
    steps = [(epoch, point, epoch.curve[-1][0]) for epoch in progress.epochs for point in epoch.curve]
    training = [(epoch.number - 1 + step / last, loss) for epoch, (step, loss, _), last in steps]
    validation = [(float(epoch.number), epoch.validation_loss) for epoch in progress.epochs]
    marks = [Mark(float(progress.departure), "point of departure")] if progress.departure else []
    curves = [Curve(training, _TRAINING), Curve(validation, _VALIDATION)]
    return curve_chart(curves, "Loss by epoch", x_ticks=_epoch_ticks(progress), marks=marks)


def _metrics(progress: Progress, word: str) -> str:
    best = progress.best
    dot = (float(best.number), best.metric, f"epoch {best.number}: {best.metric:.4f}")
    curves = [
        Curve([(float(epoch.number), epoch.training_metric) for epoch in progress.epochs], _TRAINING),
        Curve([(float(epoch.number), epoch.metric) for epoch in progress.epochs], _VALIDATION, dots=[dot]),
    ]
    return curve_chart(curves, f"{word} by epoch", x_ticks=_epoch_ticks(progress))


def _learning_rates(progress: Progress) -> str:
    steps = [(epoch, point, epoch.curve[-1][0]) for epoch in progress.epochs for point in epoch.curve]
    rates = [(epoch.number - 1 + step / last, rate) for epoch, (step, _, rate), last in steps]
    return curve_chart([Curve(rates, _TRAINING)], "Learning rate by epoch", x_ticks=_epoch_ticks(progress))


def _epoch_ticks(progress: Progress) -> list[tuple[float, str]]:
    last = progress.num_epochs
    return [(float(epoch), str(epoch)) for epoch in sorted({0, round(last / 2), last})]


_HEAD = ("epoch", "training loss", "validation loss", "on training", "on validation", "pictures/s", "workers")


def _row(epoch: Epoch) -> list[str]:
    return [
        str(epoch.number),
        f"{epoch.loss:.4f}",
        f"{epoch.validation_loss:.4f}",
        number(epoch.training_metric),
        number(epoch.metric),
        f"{epoch.pictures_per_s:,.0f}",
        str(epoch.num_workers),
    ]
