"""The best epoch becomes a bundle: thresholds from validation, metrics from test pictures, a report, a version."""

import tempfile
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labelmill.metrics import choose_thresholds
from labelmill.model.bundle import WEIGHTS_NAME, Bundle, BundleDraft, BundleFile, ModelCard
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.spec import LoadedSpec, TrainSpec
from labelmill.train.data import TrainingSet
from labelmill.train.evaluation import Answers, answer, measure
from labelmill.train.feed import check_unreadable
from labelmill.train.progress import METRIC_BY_TASK, Progress, RunFolder
from labelmill.train.report import REPORT_NAME, report_html

__all__ = ["publish"]

_LIBRARIES = ("labelmill", "torch", "torchvision", "timm", "ray", "openvino", "numpy", "scikit-learn")


def publish(
    loaded: LoadedSpec,
    registry: Registry,
    folder: RunFolder,
    training_set: TrainingSet,
    progress: Progress,
    run_digest: str,
) -> Bundle:
    """Measure the best epoch of a finished run and publish it as the next version."""
    spec = loaded.spec
    assert isinstance(spec, TrainSpec)
    with tempfile.TemporaryDirectory(prefix="labelmill-draft-") as name:
        draft = BundleDraft(
            folder=Path(name),
            task=spec.task,
            architecture=spec.model.architecture,
            labels=training_set.labels,
            preprocessing=progress.preprocessing,
            thresholds=() if spec.task == "multi_class" else (0.5,) * len(training_set.labels),
            calibration=None,
            metrics={},
            data_fingerprint=training_set.fingerprint,
            spec=loaded.source,
            library_versions={library: version(library) for library in _LIBRARIES},
        )
        folder.download_weights(progress.best.number, draft.folder / WEIGHTS_NAME)
        draft = _with_metrics(spec, draft, training_set, progress, run_digest)
        (draft.folder / REPORT_NAME).write_text(report_html(spec.name, draft, progress), encoding="utf-8")
        return registry.publish(spec.name, draft)


def _with_metrics(
    spec: TrainSpec, draft: BundleDraft, training_set: TrainingSet, progress: Progress, run_digest: str
) -> BundleDraft:
    labeler = Labeler(_as_bundle(draft), max_pixels=spec.max_pixels)
    answers = {"validation": answer(labeler, training_set.validation)}
    if len(training_set.test):
        answers["test"] = answer(labeler, training_set.test)
    unreadable = dict(progress.unreadable or {})
    for part in answers.values():
        unreadable |= part.unreadable
    check_unreadable(spec, unreadable, training_set.num_pictures)
    thresholds = draft.thresholds
    if spec.task != "multi_class":
        thresholds = choose_thresholds(answers["validation"].targets, answers["validation"].confidences).values
    draft = replace(draft, thresholds=thresholds)
    return replace(draft, metrics=_metrics(draft, answers, training_set, progress, unreadable) | {"run": run_digest})


def _metrics(
    draft: BundleDraft,
    answers: dict[str, Answers],
    training_set: TrainingSet,
    progress: Progress,
    unreadable: dict[str, str],
) -> dict[str, Any]:
    """`headline` is the one number to compare versions by; `test` is missing where the spec keeps no test pictures."""
    measured = {split: measure(draft, part) for split, part in answers.items()}
    split, name = ("test" if "test" in measured else "validation"), METRIC_BY_TASK[draft.task]
    return {
        "headline": {"name": name, "value": measured[split][name] or 0.0, "split": split},
        **measured,
        "epochs": progress.num_epochs,
        "best_epoch": progress.best.number,
        "num_pictures": {name: len(examples) for name, examples in training_set.splits().items()},
        "num_positives": training_set.num_positives(),
        "num_unreadable": max(len(unreadable), progress.num_unreadable),
        "unreadable": dict(sorted(unreadable.items())[:100]),
    }


def _as_bundle(draft: BundleDraft) -> Bundle:
    """The draft where it lies, for a Labeler to answer with."""
    manifest = draft.manifest()
    card = {field.name: getattr(draft, field.name) for field in fields(ModelCard)}
    files = {name: BundleFile(**content) for name, content in manifest["files"].items()}
    return Bundle(name="draft", version=0, digest=manifest["digest"], uri=str(draft.folder), files=files, **card)
