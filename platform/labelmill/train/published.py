"""The published models that a run is made of or learns from."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from labelmill.errors import DataError
from labelmill.model.bundle import Bundle, BundleDraft, ModelCard
from labelmill.model.registry import Registry
from labelmill.train.job import Job

__all__ = ["changed", "published_models"]


def published_models(job: Job, references: Sequence[str]) -> list[Bundle]:
    """The bundles, provided that each answers what this run asks: its task, with its labels in its order.

    DataError: one answers otherwise. RegistryError: there is no such model. BundleError: it is damaged.
    """
    registry = Registry(job.spec.registry)
    bundles = [registry.resolve(reference) for reference in references]
    for bundle in bundles:
        if bundle.task != job.spec.task:
            raise DataError(
                f"{bundle.reference} answers task {bundle.task}, and this spec has task {job.spec.task}. "
                "Name a model of that task, or correct the task."
            )
        if bundle.labels != job.labels:
            raise DataError(
                f"{bundle.reference} knows the labels {_listed(bundle.labels)}, and the pictures of this spec have "
                f"{_listed(job.labels)}. Name a model of the same labels, or the pictures it was trained on."
            )
        bundle.verify()
    return bundles


def changed(bundle: Bundle, folder: Path, **changes: object) -> Bundle:
    """A published model with other files, those in `folder`, and some fields of its card changed; not published."""
    card = {field.name: getattr(bundle, field.name) for field in fields(ModelCard)}
    return BundleDraft(folder=folder, **{**card, **changes}).as_bundle()


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
