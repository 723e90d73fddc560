"""A training run: spec in, published bundle out. The same spec again resumes it, or says there is nothing to do."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmill.dataset import inspect, load_training_set
from labelmill.errors import SpecError
from labelmill.model.bundle import Bundle
from labelmill.model.cache import check_cache
from labelmill.model.registry import Registry
from labelmill.spec import LoadedSpec, TrainSpec
from labelmill.train.candidate import make_candidate
from labelmill.train.feed.feed import check_unreadable
from labelmill.train.job import Job
from labelmill.train.progress import RunFolder
from labelmill.train.publication.promotion import Promotion, decide_promotion
from labelmill.train.publication.publication import check_threshold_labels, publish
from labelmill.train.publication.report import REPORT_NAME
from labelmill.train.tracking.tensorboard import write_events
from labelmill.train.tracking.tracking import tracked

__all__ = ["TrainResult", "run", "run_digest"]

logger = logging.getLogger(__name__)

# What decides where and how fast a run goes, or what happens after it, but not what comes out.
_NOT_IN_DIGEST = ("workers", "promote", "tracking", "max_accuracy_loss")


@dataclass(frozen=True)
class TrainResult:
    """What a run ended with. `promotion` is None when there was nothing to do; printed, it is a summary for people."""

    bundle: Bundle
    promotion: Promotion | None

    def __str__(self) -> str:
        headline = self.bundle.metrics["headline"]
        measured = self.bundle.metrics[headline["split"]]
        names = [
            name for name in dict.fromkeys((headline["name"], "accuracy", "macro_f1")) if measured[name] is not None
        ]
        numbers = [f"{name} {measured[name]:.4f}" for name in names]
        lines = [
            f"{self.bundle.reference}  {self.bundle.architecture}, {len(self.bundle.labels)} labels",
            f"  {headline['split']}: {', '.join(numbers)} on {measured['num_pictures']} pictures",
            f"  report: {self.bundle.uri}/{REPORT_NAME}",
        ]
        if self.promotion is None:
            return "\n".join([f"nothing to do: this spec and this data gave {self.bundle.reference} already", *lines])
        verb = "is current now" if self.promotion.promoted else "was not promoted"
        return "\n".join([*lines, f"  {verb}: {self.promotion.reason}"])


def run(loaded: LoadedSpec) -> TrainResult:
    """Train, measure, publish, and promote as the spec says.

    A run that was cut short goes on from its last complete epoch when it is started again with the same spec and data;
    one that was published already is not repeated. DataError, ClusterError, RegistryError, StorageError, BundleError.
    """
    spec = loaded.spec
    if not isinstance(spec, TrainSpec):
        raise SpecError(f"{loaded.path}: expected kind: train, got {spec.kind!r}")
    registry = Registry(spec.registry)
    training_set = load_training_set(spec)
    check_threshold_labels(spec, training_set.labels)
    digest = run_digest(loaded.source, training_set.fingerprint)
    folder = RunFolder(f"{registry.uri}/{spec.name}/runs/{digest[:16]}")
    bundle = _published(registry, spec.name, digest)
    if bundle is not None and not folder.exists():
        return TrainResult(bundle, None)
    check_cache()  # the result is measured from there, which may be hours away
    job = Job(_with_absolute_addresses(spec, registry), training_set.labels, folder.uri, _decisive(loaded.source))
    with tracked(job) as tracking:
        if bundle is None:
            findings = inspect(spec, training_set)
            check_unreadable(spec, findings.unreadable, training_set.num_pictures)
            with tempfile.TemporaryDirectory(prefix="labelmill-draft-") as draft:
                candidate = make_candidate(job, training_set, Path(draft)).knowing(findings)
                if candidate.progress is not None:
                    write_events(spec, candidate.progress, Path(draft))
                bundle = publish(loaded, registry, training_set, candidate, Path(draft), digest)
        tracking.finish(bundle)
    promotion = decide_promotion(spec, registry, bundle, training_set.measured)
    if promotion.promoted:
        registry.promote(bundle.reference, reason=promotion.reason)
    folder.remove()  # last: until then the same spec again finishes what is missing
    return TrainResult(bundle, promotion)


def run_digest(source: Mapping[str, Any], fingerprint: str) -> str:
    """The identity of a run: sha256 of the spec as written and of the data."""
    return hashlib.sha256(json.dumps([_decisive(source), fingerprint], sort_keys=True).encode()).hexdigest()


def _decisive(source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: {name: part for name, part in value.items() if name not in _NOT_IN_DIGEST}
        if isinstance(value, dict)
        else value
        for key, value in source.items()
        if key not in _NOT_IN_DIGEST
    }


def _published(registry: Registry, name: str, digest: str) -> Bundle | None:
    """The version that this very run gave, if it got so far."""
    for number in reversed(registry.versions(name)):
        bundle = registry.resolve(f"{name}@{number}")
        if bundle.metrics.get("run") == digest:
            return bundle
    return None


def _with_absolute_addresses(spec: TrainSpec, registry: Registry) -> TrainSpec:
    """For the workers, who stand in other folders."""
    model = spec.model
    if model is not None and model.weights.endswith(".safetensors"):
        model = model.model_copy(update={"weights": str(Path(model.weights).absolute())})
    return spec.model_copy(update={"registry": registry.uri, "model": model})
