"""A training run: spec in, published bundle out. The same spec again resumes it, or says there is nothing to do."""

import logging
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from labelmill.dataset import TrainingSet, inspect, load_training_sets
from labelmill.errors import DataError, SpecError
from labelmill.model.bundle import Bundle
from labelmill.model.cache import check_cache
from labelmill.model.registry import Registry
from labelmill.spec import LoadedSpec, TrainSpec
from labelmill.storage import requests_limited
from labelmill.storage.lease import Lease
from labelmill.train.candidate import make_candidate
from labelmill.train.feed.feed import check_unreadable
from labelmill.train.identity import Identity, identity_of, run_digest
from labelmill.train.job import Job
from labelmill.train.publication.promotion import Promotion, decide_promotion
from labelmill.train.publication.publication import check_threshold_labels, measured_draft
from labelmill.train.publication.report import REPORT_NAME
from labelmill.train.seen import note_seen
from labelmill.train.tracking.tensorboard import write_events
from labelmill.train.tracking.tracking import tracked
from labelmill.train.unfinished import find_folder, held
from labelmill.unattended import note

__all__ = ["TrainResult", "run", "run_digest"]

logger = logging.getLogger(__name__)


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
    one that was published already is not repeated. BusyError: another process is at the very same run. DataError,
    ClusterError, RegistryError, StorageError, BundleError, FencedError.
    """
    spec = loaded.spec
    if not isinstance(spec, TrainSpec):
        raise SpecError(f"{loaded.path}: expected kind: train, got {spec.kind!r}")
    with requests_limited(spec.max_requests_per_s):
        return _run(loaded, spec)


def _run(loaded: LoadedSpec, spec: TrainSpec) -> TrainResult:
    registry = Registry(spec.registry)
    training_set, identity = _identified(loaded, spec, registry)
    check_threshold_labels(spec, training_set.labels)
    known = registry.versions(spec.name)
    bundle = identity.published(registry)
    folder = find_folder(registry, identity)
    if bundle is not None and not folder.exists():
        return _noted(TrainResult(bundle, None))
    check_cache()  # the result is measured from there, which may be hours away
    with held(folder, registry, identity) as lease:
        # Whoever held the folder before may have finished.
        bundle = bundle or identity.published(registry, beside=known)
        if bundle is not None and not folder.exists():
            return _noted(TrainResult(bundle, None))
        identity.check_origins()
        job = Job(
            _with_absolute_addresses(spec, registry), training_set.labels, folder.uri, identity.source, lease.fence
        )
        with tracked(job) as tracking:
            if bundle is None:
                bundle = _train(loaded, job, training_set, identity, lease)
            tracking.finish(bundle)
        promotion = decide_promotion(spec, registry, bundle, training_set)
        if promotion.promoted:
            registry.promote(bundle.reference, reason=promotion.reason)
        folder.remove()  # last: until then the same spec again finishes what is missing
    return _noted(TrainResult(bundle, promotion))


def _noted(result: TrainResult) -> TrainResult:
    """What whoever hears of the end is told of."""
    headline, promotion = result.bundle.metrics["headline"], result.promotion
    note(
        outcome="nothing to do" if promotion is None else "complete",
        model=result.bundle.reference,
        promoted=bool(promotion and promotion.promoted),
        metrics={headline["name"]: headline["value"]},
        summary=str(result),
    )
    return result


def _train(loaded: LoadedSpec, job: Job, training_set: TrainingSet, identity: Identity, lease: Lease) -> Bundle:
    registry = Registry(job.spec.registry)
    findings = inspect(job.spec, training_set)
    check_unreadable(job.spec, findings.unreadable, training_set.num_pictures)
    with tempfile.TemporaryDirectory(prefix="labelmill-draft-") as folder:
        candidate = make_candidate(job, training_set, Path(folder)).knowing(findings)
        if candidate.progress is not None:
            write_events(job.spec, candidate.progress, Path(folder))
        note_seen(job.spec, registry, training_set, Path(folder))
        draft = measured_draft(loaded, training_set, candidate, Path(folder), identity.noted())
        lease.check()  # whoever took the run over publishes it
        return registry.publish(job.spec.name, draft)


def _identified(loaded: LoadedSpec, spec: TrainSpec, registry: Registry) -> tuple[TrainingSet, Identity]:
    """The training set, and the run that it makes.

    A spec that names no way to split has run in the way `stratified` with an earlier labelmill: what that began or
    finished on these very pictures stays this run, splits and all.
    """
    is_named = "way" in spec.data.split.model_fields_set
    sets = load_training_sets(spec, (spec.data.split.way,) if is_named else (spec.data.split.way, "stratified"))
    training_set = next(sets)
    identity = identity_of(loaded, training_set.fingerprint)
    with suppress(DataError):  # pictures that only the other way can share out
        for earlier in sets if not _is_known(registry, identity) else ():
            other = replace(identity, fingerprint=earlier.fingerprint)
            if _is_known(registry, other):
                logger.info("an earlier labelmill began this run: its splits are kept (data.split.way: stratified)")
                return earlier, other
    return training_set, identity


def _is_known(registry: Registry, identity: Identity) -> bool:
    return find_folder(registry, identity).exists() or identity.published(registry) is not None


def _with_absolute_addresses(spec: TrainSpec, registry: Registry) -> TrainSpec:
    """For the workers, who stand in other folders."""
    model = spec.model
    if model is not None and model.weights.endswith(".safetensors"):
        model = model.model_copy(update={"weights": str(Path(model.weights).absolute())})
    return spec.model_copy(update={"registry": registry.uri, "model": model})
