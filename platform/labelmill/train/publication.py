"""A candidate becomes a bundle: thresholds from validation, metrics from test pictures, a report, a version."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labelmill.dataset import TrainingSet
from labelmill.evaluate.answers import Answers, answer, measure
from labelmill.metrics import choose_thresholds
from labelmill.model.bundle import Bundle, BundleDraft
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.spec import LoadedSpec, TrainSpec
from labelmill.train.candidate import Candidate
from labelmill.train.feed import check_unreadable
from labelmill.train.progress import METRIC_BY_TASK
from labelmill.train.report import REPORT_NAME, report_html

__all__ = ["publish"]

_LIBRARIES = ("labelmill", "torch", "torchvision", "timm", "ray", "openvino", "numpy", "scikit-learn")


def publish(
    loaded: LoadedSpec,
    registry: Registry,
    training_set: TrainingSet,
    candidate: Candidate,
    draft_folder: Path,
    run_digest: str,
) -> Bundle:
    """Measure a candidate whose files lie in `draft_folder`, and publish it as the next version."""
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
    draft = _with_metrics(spec, draft, training_set, candidate, run_digest)
    (draft.folder / REPORT_NAME).write_text(report_html(spec.name, draft, candidate.progress), encoding="utf-8")
    return registry.publish(spec.name, draft)


def _with_metrics(
    spec: TrainSpec, draft: BundleDraft, training_set: TrainingSet, candidate: Candidate, run_digest: str
) -> BundleDraft:
    labeler = Labeler(draft.as_bundle(), max_pixels=spec.max_pixels)
    answers = {"validation": answer(labeler, training_set.validation)}
    if len(training_set.test):
        answers["test"] = answer(labeler, training_set.test)
    unreadable = dict(candidate.unreadable) | dict((candidate.progress and candidate.progress.unreadable) or {})
    for part in answers.values():
        unreadable |= part.unreadable
    check_unreadable(spec, unreadable, training_set.num_pictures)
    thresholds = draft.thresholds
    if spec.task != "multi_class":
        thresholds = choose_thresholds(answers["validation"].targets, answers["validation"].confidences).values
    draft = replace(draft, thresholds=thresholds)
    return replace(draft, metrics=_metrics(draft, answers, training_set, candidate, unreadable) | {"run": run_digest})


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
