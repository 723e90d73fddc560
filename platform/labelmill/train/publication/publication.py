"""A candidate becomes the draft of a bundle: calibrated, with thresholds from validation, metrics from test pictures,
and a report."""

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labelmill.dataset import TrainingSet, find_suspects, left_out_confidences
from labelmill.errors import DataError
from labelmill.evaluate.answers import Answers, answer, measure
from labelmill.evaluate.calibration import fit_calibration
from labelmill.evaluate.evaluation import EVALUATION_NAME, evaluation_of
from labelmill.evaluate.robustness import measure_robustness
from labelmill.metrics import choose_thresholds
from labelmill.model.bundle import BundleDraft
from labelmill.model.labeler import Labeler
from labelmill.spec import LoadedSpec, TrainSpec
from labelmill.train.candidate import Candidate
from labelmill.train.feed.feed import check_unreadable
from labelmill.train.progress import METRIC_BY_TASK
from labelmill.train.publication.report import REPORT_NAME, report_html, report_pictures

__all__ = ["check_threshold_labels", "measured_draft"]

_LIBRARIES = ("labelmill", "torch", "torchvision", "timm", "ray", "openvino", "numpy", "scikit-learn")


def measured_draft(
    loaded: LoadedSpec, training_set: TrainingSet, candidate: Candidate, draft_folder: Path, run: Mapping[str, Any]
) -> BundleDraft:
    """A candidate whose files lie in `draft_folder`, measured and reported: what is to be published as the next
    version. `run` are the metrics by which it is known which run made it."""
    spec = loaded.spec
    assert isinstance(spec, TrainSpec)
    draft = BundleDraft(
        folder=draft_folder,
        task=spec.task,
        architecture=candidate.architecture,
        labels=training_set.labels,
        preprocessing=candidate.preprocessing,
        thresholds=() if spec.task == "multi_class" else (0.5,) * len(training_set.labels),
        calibration=None,
        metrics={},
        data_fingerprint=training_set.fingerprint,
        spec=loaded.source,
        library_versions={library: version(library) for library in _LIBRARIES},
    )
    answers, unreadable = _answers(spec, draft, training_set, candidate)
    draft, findings = _decided(spec, draft, answers["validation"])
    metrics = _metrics(draft, answers, training_set, candidate, unreadable)
    metrics["findings"] |= findings
    metrics["findings"]["data"] = metrics["findings"].get("data", {}) | _suspects(spec, draft, answers, training_set)
    draft = replace(draft, metrics={**metrics, **run})
    evaluation = _evaluation(spec, draft, answers, training_set)
    (draft.folder / EVALUATION_NAME).write_text(json.dumps(evaluation, allow_nan=False), encoding="utf-8")
    pictures = report_pictures(draft.as_bundle(), evaluation, metrics["findings"], max_pixels=spec.max_pixels)
    html = report_html(spec.name, draft, evaluation, candidate.progress, pictures)
    (draft.folder / REPORT_NAME).write_text(html, encoding="utf-8")
    return draft


def check_threshold_labels(spec: TrainSpec, labels: tuple[str, ...]) -> None:
    """DataError when the spec has a threshold for a label that is not there."""
    unknown = sorted(set(spec.thresholds.labels) - set(labels))
    if unknown:
        raise DataError(
            f"thresholds.labels: expected labels of the training set ({', '.join(labels[:20])}), got "
            f"{', '.join(map(repr, unknown))}. Correct or remove them."
        )


def _answers(
    spec: TrainSpec, draft: BundleDraft, training_set: TrainingSet, candidate: Candidate
) -> tuple[dict[str, Answers], dict[str, str]]:
    """Of the validation and, where there are any, the test pictures; and what could not be read in the whole run."""
    labeler = Labeler(draft.as_bundle(), max_pixels=spec.max_pixels)
    answers = {"validation": answer(labeler, training_set.validation)}
    if len(training_set.test):
        answers["test"] = answer(labeler, training_set.test)
    unreadable = dict(candidate.unreadable)
    if candidate.progress:
        unreadable |= candidate.progress.unreadable or {}
    for part in answers.values():
        unreadable |= part.unreadable
    check_unreadable(spec, unreadable, training_set.num_pictures)
    return answers, unreadable


def _decided(spec: TrainSpec, draft: BundleDraft, validation: Answers) -> tuple[BundleDraft, dict[str, Any]]:
    """The draft with its calibration and thresholds, and what is to be said about those."""
    calibration = fit_calibration(draft.task, spec.calibration, validation.targets, validation.logits)
    draft = replace(draft, calibration=calibration)
    if draft.task == "multi_class":
        return draft, {}
    rules = [spec.thresholds.rule(label) for label in draft.labels]
    chosen = choose_thresholds(validation.targets, draft.confidences(validation.logits), rules)
    findings = {
        "without_positives": [draft.labels[column] for column in chosen.without_positives],
        "precision_not_reached": [draft.labels[column] for column in chosen.unmet],
    }
    return replace(draft, thresholds=chosen.values), {"thresholds": findings}


def _suspects(
    spec: TrainSpec, draft: BundleDraft, answers: dict[str, Answers], training_set: TrainingSet
) -> dict[str, Any]:
    """`suspects` are doubted by the calibrated model, `training_suspects` by the features it has of the others."""
    answered = {split: (part.examples, draft.confidences(part.logits)) for split, part in answers.items()}
    found = {"suspects": find_suspects(draft.task, draft.labels, answered)}
    if spec.data.suspects == "all":
        labeler = Labeler(draft.as_bundle(), max_pixels=spec.max_pixels, embeddings=True)
        seen = answer(labeler, training_set.train)
        assert seen.features is not None
        confidences = left_out_confidences(draft.task, seen.features, seen.targets)
        found["training_suspects"] = find_suspects(draft.task, draft.labels, {"train": (seen.examples, confidences)})
    return found


def _evaluation(
    spec: TrainSpec, draft: BundleDraft, answers: dict[str, Answers], training_set: TrainingSet
) -> dict[str, Any]:
    split, robustness = draft.metrics["headline"]["split"], None
    if spec.robustness_pictures:
        labeler = Labeler(draft.as_bundle(), max_pixels=spec.max_pixels)
        robustness = measure_robustness(
            labeler, training_set.measured, num_pictures=spec.robustness_pictures, max_pixels=spec.max_pixels
        )
    model = {"name": spec.name, "version": None, "digest": None}
    return evaluation_of(draft, answers[split], split=split, model=model, robustness=robustness)


def _metrics(
    draft: BundleDraft,
    answers: dict[str, Answers],
    training_set: TrainingSet,
    candidate: Candidate,
    unreadable: dict[str, str],
) -> dict[str, Any]:
    """`headline` is the one number to compare versions by; `test` is missing where the spec keeps no test pictures."""
    measured = {split: measure(draft, part) for split, part in answers.items()}
    split, name = ("test" if "test" in measured else "validation"), METRIC_BY_TASK[draft.task]
    progress = candidate.progress
    return {
        "headline": {"name": name, "value": measured[split][name] or 0.0, "split": split},
        **measured,
        "epochs": progress.num_epochs if progress else 0,
        "best_epoch": progress.best.number if progress else None,
        "findings": dict(candidate.findings),
        "num_pictures": {name: len(examples) for name, examples in training_set.splits().items()},
        "num_positives": training_set.num_positives(),
        "num_unreadable": max(len(unreadable), progress.num_unreadable if progress else 0),
        "unreadable": dict(sorted(unreadable.items())[:100]),
    }
