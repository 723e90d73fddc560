"""What the training report adds to the sections of an evaluation; those have tests of their own."""

import dataclasses

import pytest

from evaluate.evaluations import made_card, made_evaluation
from labelmill.evaluate.report.pictures import ReportPictures
from labelmill.images.transform import Preprocessing
from labelmill.model.bundle import BundleDraft
from labelmill.train.progress import Epoch, Progress
from labelmill.train.publication.report import report_html

LABELS = ("<script>alert(1)</script>", "cat & dog", '"eel"')


def page(tmp_path, losses: list[tuple[float, float]] | None, *, split: str = "test") -> str:
    """`losses` are those of training and validation, epoch by epoch."""
    metrics = {
        "findings": {"thresholds": {"without_positives": [LABELS[0]]}},
        "num_pictures": {"train": 200, "validation": 30, "test": 30},
        "num_positives": {label: {"train": 90, "validation": 12, "test": 12} for label in LABELS},
        "num_unreadable": 0,
        "unreadable": {},
    }
    card = made_card("multi_label", LABELS, metrics=metrics, spec={"data": {"labels": "</pre><img src=x>"}})
    values = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    evaluation = made_evaluation("multi_label", LABELS) | {"split": split}
    progress = Progress(Preprocessing(32), epochs(losses)) if losses else None
    return report_html("shapes", BundleDraft(**values, folder=tmp_path), evaluation, progress, ReportPictures())


def epochs(losses: list[tuple[float, float]]) -> tuple[Epoch, ...]:
    curve = ((5, 0.7, 1e-3), (10, 0.5, 5e-4))
    return tuple(
        Epoch(
            number=number,
            loss=training,
            metric=0.9 - 0.01 * number,
            learning_rate=5e-4,
            pictures_per_s=100.0,
            num_workers=2,
            curve=curve,
            validation_loss=validation,
            training_metric=0.8,
        )
        for number, (training, validation) in enumerate(losses, start=1)
    )


def test_what_comes_from_outside_is_text_never_markup(tmp_path):
    html = page(tmp_path, [(0.6, 0.7)])
    assert "<script" not in html and "<img" not in html
    assert "&lt;/pre&gt;&lt;img src=x&gt;" in html


def test_numbers_from_validation_pictures_say_so(tmp_path):
    assert "which training never saw" in page(tmp_path, [(0.6, 0.7)])
    assert "flatter the model" in page(tmp_path, [(0.6, 0.7)], split="validation")


@pytest.mark.parametrize(
    ("losses", "departs"),
    [([(0.6, 0.7), (0.4, 0.5), (0.2, 0.9)], True), ([(0.6, 0.7), (0.4, 0.5)], False)],
)
def test_the_point_of_departure_is_marked_where_there_is_one(tmp_path, losses, departs):
    html = page(tmp_path, losses)
    assert ("point of departure" in html) == departs
    assert ("After epoch 2" in html) == departs


def test_one_epoch_is_enough_for_curves_and_none_leaves_them_out(tmp_path):
    assert 'id="training"' in page(tmp_path, [(0.6, 0.7)])
    assert 'id="training"' not in page(tmp_path, None)


def test_findings_of_an_approach_are_told(tmp_path):
    assert "thresholds: without positives" in page(tmp_path, None)
