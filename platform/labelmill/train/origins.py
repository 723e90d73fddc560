"""What a run starts from beside its labelled pictures, and which content that has: the same name may hold another."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.errors import BundleError, LabelmillError, NotFoundError, RegistryError, SpecError
from labelmill.model.registry import Registry
from labelmill.spec import TrainSpec
from labelmill.storage import LISTING_SCHEMA, open_store

__all__ = ["Origin", "list_unlabelled", "origins_of"]


@dataclass(frozen=True)
class Origin:
    """A file of weights, a published model, or pictures without labels. `name` is a field of the spec, or the model.

    `digest` is None where it is gone; `why` then says so.
    """

    name: str
    digest: str | None
    changed_at: datetime | None = None
    why: LabelmillError | None = None


def origins_of(spec: TrainSpec, registry: Registry) -> tuple[Origin, ...]:
    """All that the result depends on and the spec only names."""
    return tuple(_origins(spec, registry))


def list_unlabelled(images: str) -> pa.Table:
    """The pictures of `adapt.images`, in the order in which the store lists them."""
    return pa.Table.from_batches(open_store(images).list(), schema=LISTING_SCHEMA)


def _origins(spec: TrainSpec, registry: Registry) -> Iterator[Origin]:
    weights = spec.model.weights if spec.model else "scratch"
    if weights.endswith(".safetensors"):
        yield _file(Path(weights))
    elif "@" in weights:
        yield _model(registry, weights)
    for reference in spec.published:
        yield _model(registry, reference)
    if spec.adapt is not None:
        yield _pictures(spec.adapt.images)


def _file(path: Path) -> Origin:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Origin("model.weights", digest, datetime.fromtimestamp(path.stat().st_mtime, UTC))
    except OSError as exc:
        reason = f"{path} cannot be read: {exc.strerror or exc}"
        return Origin("model.weights", None, why=SpecError(f"model.weights: {reason}. Correct the path."))


def _model(registry: Registry, reference: str) -> Origin:
    try:
        bundle = registry.resolve(reference)
    except (RegistryError, BundleError) as exc:
        return Origin(reference, None, why=exc)
    return Origin(reference, bundle.digest, registry.published_at(bundle))


def _pictures(images: str) -> Origin:
    try:
        listed = list_unlabelled(images)
    except NotFoundError as exc:
        return Origin("adapt.images", None, why=exc)
    digest = hashlib.sha256()
    rows = zip(*(listed.column(name).to_pylist() for name in ("uri", "etag")), strict=True)
    for row in sorted(rows):
        digest.update("\0".join(row).encode() + b"\0")
    return Origin("adapt.images", digest.hexdigest(), pc.max(listed.column("modified_at")).as_py())
