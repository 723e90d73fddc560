"""Whether the alias `current` moves to a new version."""

from dataclasses import dataclass

from labelmill.dataset import Examples
from labelmill.errors import BundleError, RegistryError
from labelmill.evaluate.answers import answer, measure
from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.spec import TrainSpec
from labelmill.train.progress import METRIC_BY_TASK

__all__ = ["Promotion", "decide_promotion"]

_ALIAS = "current"


@dataclass(frozen=True)
class Promotion:
    """Whether to promote, and why."""

    promoted: bool
    reason: str


def decide_promotion(spec: TrainSpec, registry: Registry, bundle: Bundle, measured: Examples) -> Promotion:
    """What `promote:` says about this bundle; nothing is changed.

    when_better compares the new bundle with the current one on the same pictures, those that measured the new one. The
    current one may have learnt from some of them; a tie, and any doubt, leaves things as they are.
    """
    match spec.promote:
        case "never":
            return Promotion(False, "promote: never")
        case "always":
            return Promotion(True, "promote: always")
    if not registry.has_alias(bundle.name, _ALIAS):
        return Promotion(True, "there was no current version")
    try:
        current = registry.resolve(f"{bundle.name}@{_ALIAS}")
    except (BundleError, RegistryError) as exc:  # damaged, deleted, or nobody can say which one it is
        return Promotion(False, f"the current version cannot be compared: {exc}")
    if current.version == bundle.version:
        return Promotion(False, "it is the current version already")
    return _compare(spec, bundle, current, measured)


def _compare(spec: TrainSpec, bundle: Bundle, current: Bundle, measured: Examples) -> Promotion:
    if (current.task, current.labels) != (bundle.task, bundle.labels):
        return Promotion(
            False, f"{_difference(bundle, current)}: the two cannot be compared; promote it by hand if you mean it"
        )
    metric = METRIC_BY_TASK[spec.task]
    try:
        answers = answer(Labeler(current, max_pixels=spec.max_pixels), measured)
    except BundleError as exc:
        return Promotion(False, f"{current.reference} cannot be compared: {exc}")
    theirs = measure(current, answers)[metric] or 0.0
    ours = bundle.metrics["headline"]["value"] or 0.0
    words = f"{metric} {ours:.4f}, and {current.reference} has {theirs:.4f} on the same pictures"
    return Promotion(ours > theirs, words)


def _difference(bundle: Bundle, current: Bundle) -> str:
    if bundle.task != current.task:
        return f"{current.reference} answers task {current.task}, this one {bundle.task}"
    added, gone = sorted(set(bundle.labels) - set(current.labels)), sorted(set(current.labels) - set(bundle.labels))
    changes = [f"{word} {', '.join(labels[:5])}" for word, labels in (("new:", added), ("gone:", gone)) if labels]
    return f"its labels are not those of {current.reference} ({'; '.join(changes) or 'another order'})"
