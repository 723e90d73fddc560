"""Whether the alias `current` moves to a new version."""

from dataclasses import dataclass

import numpy as np

from labelmill.dataset import Examples, TrainingSet, unseen
from labelmill.errors import BundleError, DataError, RegistryError
from labelmill.evaluate.answers import Answers, answer_together
from labelmill.metrics import Decisions, decide, difference
from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.spec import TrainSpec
from labelmill.train.progress import METRIC_BY_TASK
from labelmill.train.seen import FEWEST_TO_COMPARE, seen_by

__all__ = ["Promotion", "decide_promotion"]

_ALIAS = "current"


@dataclass(frozen=True)
class Promotion:
    """Whether to promote, and why."""

    promoted: bool
    reason: str


class _NotComparableError(Exception):
    """Why two versions cannot be compared."""


def decide_promotion(spec: TrainSpec, registry: Registry, bundle: Bundle, training_set: TrainingSet) -> Promotion:
    """What `promote:` says about this bundle; nothing is changed.

    when_better compares the new bundle with the current one on those test pictures that neither has seen, and promotes
    it when the whole interval of the difference lies above zero. A tie, and any doubt, leaves things as they are.
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
    try:
        return _compare(spec, bundle, current, training_set)
    except (_NotComparableError, BundleError, DataError) as exc:
        by_hand = f"labelmill models promote {bundle.reference}"
        return Promotion(False, f"{current.reference} cannot be compared with it: {exc} By hand: {by_hand}")


def _compare(spec: TrainSpec, bundle: Bundle, current: Bundle, training_set: TrainingSet) -> Promotion:
    if (current.task, current.labels) != (bundle.task, bundle.labels):
        raise _NotComparableError(f"{_unlike(bundle, current)}.")
    pictures = _unseen_by_both(bundle, current, training_set)
    metric = METRIC_BY_TASK[spec.task]
    labelers = [Labeler(version, max_pixels=spec.max_pixels) for version in (bundle, current)]
    ours, theirs = answer_together(labelers, pictures)
    count = len(ours.examples)
    found = difference(metric, _decisions(bundle, ours), _decisions(current, theirs))
    if found is None:
        raise _NotComparableError(f"hardly any of the {count} test pictures that neither has seen has a label.")
    words = (
        f"{metric} {found.first:.4f}, and {current.reference} has {found.second:.4f} on the same {count} "
        f"test pictures, which neither has seen; a difference of {found.low:+.4f} to {found.high:+.4f} (95 %)"
    )
    return Promotion(found.is_sure_lead, words if found.is_sure_lead else f"{words} is no sure lead")


def _unseen_by_both(bundle: Bundle, current: Bundle, training_set: TrainingSet) -> Examples:
    pictures = training_set.test
    if not len(pictures):
        raise _NotComparableError("no picture was kept for testing: give data.split.test a share.")
    for version in (bundle, current):
        seen = seen_by(version)
        if seen is None:
            raise _NotComparableError(
                f"{version.reference} does not say which pictures it has seen, since it, or what it comes from, was "
                "made by an earlier labelmill."
            )
        pictures = pictures.take(np.flatnonzero(unseen(pictures, training_set.root, seen)))
    if len(pictures) < FEWEST_TO_COMPARE:
        raise _NotComparableError(
            f"of {len(training_set.test)} test pictures {len(pictures)} were seen by neither, and it takes "
            f"{FEWEST_TO_COMPARE}: add pictures, or keep data.split as it was for that version."
        )
    return pictures


def _decisions(bundle: Bundle, answers: Answers) -> Decisions:
    confidences = bundle.confidences(answers.logits)
    return decide(bundle.task, bundle.labels, answers.targets, confidences, bundle.thresholds)


def _unlike(bundle: Bundle, current: Bundle) -> str:
    if bundle.task != current.task:
        return f"{current.reference} answers task {current.task}, this one {bundle.task}"
    added, gone = sorted(set(bundle.labels) - set(current.labels)), sorted(set(current.labels) - set(bundle.labels))
    changes = [f"{word} {', '.join(labels[:5])}" for word, labels in (("new:", added), ("gone:", gone)) if labels]
    return f"its labels are not those of {current.reference} ({'; '.join(changes) or 'another order'})"
