"""What a bundle notes of the pictures that it has seen the labels of, in a file of its own beside `bundle.json`.

A version can only be compared with another on pictures that neither has seen. A bundle without the file does not say:
it is of an earlier labelmill, or was made of one that is.
"""

import logging
from functools import reduce
from pathlib import Path

import numpy as np

from labelmill.dataset import Examples, Seen, TrainingSet, seen_in_training, unseen
from labelmill.errors import BundleError, RegistryError
from labelmill.model.bundle import Bundle
from labelmill.model.registry import Registry
from labelmill.spec import TrainSpec, trial_specs

__all__ = ["FEWEST_TO_COMPARE", "SEEN_NAME", "note_seen", "seen_by", "unseen_by"]

logger = logging.getLogger(__name__)

SEEN_NAME = "seen.u64"
FEWEST_TO_COMPARE = 10  # pictures; with ten an interval says hardly anything, with fewer it is none


def note_seen(spec: TrainSpec, registry: Registry, training_set: TrainingSet, draft: Path) -> None:
    """Write the file into a draft's folder: what its training has seen, and what the models have that it comes from."""
    parts = [seen_in_training(training_set)]
    for reference in sorted(_ancestors(spec)):
        try:
            seen = seen_by(registry.resolve(reference))
        except (BundleError, RegistryError) as exc:
            logger.warning("%s cannot be asked any more which pictures it has seen: %s", reference, exc)
            return
        if seen is None:
            return
        parts.append(seen)
    (draft / SEEN_NAME).write_bytes(reduce(np.union1d, parts).astype("<u8").tobytes())


def seen_by(bundle: Bundle) -> Seen | None:
    """What the bundle notes; None where it does not say. BundleError: the file is damaged."""
    return np.frombuffer(bundle.read_file(SEEN_NAME), "<u8") if SEEN_NAME in bundle.files else None


def unseen_by(bundle: Bundle, training_set: TrainingSet) -> Examples:
    """Of the pictures that measure the result those that a published model has not seen; all, with a warning, where it
    does not say, or too few are left."""
    seen, measured = seen_by(bundle), training_set.measured
    if seen is not None:
        pictures = measured.take(np.flatnonzero(unseen(measured, training_set.root, seen)))
        if len(pictures) >= FEWEST_TO_COMPARE:
            return pictures
    logger.warning("%s may have learnt from some of the pictures that it is compared on", bundle.reference)
    return measured


def _ancestors(spec: TrainSpec) -> set[str]:
    """The published models that taught this one, or whose weights it began with or is made of."""
    trials = [trial for _, trial in trial_specs(spec)] if spec.tune else [spec]
    weights = {trial.model.weights for trial in trials if trial.model}
    return {*spec.published, *(start for start in weights if "@" in start and not start.endswith(".safetensors"))}
