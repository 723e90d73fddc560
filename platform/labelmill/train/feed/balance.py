"""Rare labels brought up: what each counts in the loss, and how often its pictures are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from labelmill.dataset import Examples
from labelmill.errors import DataError
from labelmill.spec import Loss

__all__ = ["check_weighted_labels", "class_weights", "drawing_weights", "oversampled", "positive_weights"]


def class_weights(loss: Loss, labels: Sequence[str], targets: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What each label counts [L], from the targets [N, L] of all training pictures.

    `inverse` is one over the label's pictures, `effective_number` (1 - beta) / (1 - beta^n) with n of them (Cui et al.,
    Class-Balanced Loss Based on Effective Number of Samples, 2019); both are scaled so that the positives count 1 on
    average and the learning rate keeps its meaning. A label without a picture counts as if it had one.
    """
    rule = loss.class_weights
    if rule == "none" or isinstance(rule, dict):
        return _by_label(rule, labels)
    counts = np.maximum(targets.sum(axis=0, dtype=np.float64), 1)
    weights = 1 / counts if rule == "inverse" else (1 - loss.beta) / (1 - loss.beta**counts)
    scaled: NDArray[np.float32] = (weights * counts.sum() / (weights * counts).sum()).astype(np.float32)
    return scaled


def positive_weights(loss: Loss, labels: Sequence[str], targets: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a present label counts against an absent one [L]; `balanced`: pictures without it over those with it."""
    rule = loss.positive_weights
    if rule == "none" or isinstance(rule, dict):
        return _by_label(rule, labels)
    counts = np.clip(targets.sum(axis=0, dtype=np.float64), 1, max(1, len(targets) - 1))
    balanced: NDArray[np.float32] = ((len(targets) - counts) / counts).astype(np.float32)
    return balanced


def check_weighted_labels(loss: Loss, labels: Sequence[str]) -> None:
    """DataError when a mapping of weights names a label that the data has not."""
    for field, rule in (("class_weights", loss.class_weights), ("positive_weights", loss.positive_weights)):
        unknown = sorted(set(rule) - set(labels)) if isinstance(rule, dict) else []
        if unknown:
            raise DataError(
                f"optimize.loss.{field} names {', '.join(map(repr, unknown))}, and the data has no such label. "
                f"Its labels: {', '.join(labels[:20])}{' and more' if len(labels) > 20 else ''}."
            )


def drawing_weights(targets: NDArray[np.uint8], strength: float) -> NDArray[np.float64]:
    """How often each picture [N] is drawn against one of the most common label.

    A picture is drawn for its rarest label: (pictures of the most common label / its pictures) ** strength, which is
    class-balanced sampling at 1 and, at 0.5, the square root of repeat-factor sampling (Gupta et al., LVIS, 2019). In a
    binary task yes and no are the two labels.
    """
    both = np.hstack([targets, 1 - targets]) if targets.shape[1] == 1 else targets
    counts = both.sum(axis=0, dtype=np.float64)
    factors = (counts.max(initial=1) / np.maximum(counts, 1)) ** strength
    weights: NDArray[np.float64] = np.maximum((both * factors).max(axis=1), 1)
    return weights


def oversampled(examples: Examples, strength: float) -> Examples:
    """The same pictures, with the rates at which an epoch as long as before draws them."""
    if not strength:
        return examples
    rates = drawing_weights(examples.targets, strength) * (1.0 if examples.rates is None else examples.rates)
    return replace(examples, rates=rates * (examples.num_draws / rates.sum()))


def _by_label(rule: str | Mapping[str, float], labels: Sequence[str]) -> NDArray[np.float32]:
    given = rule if isinstance(rule, Mapping) else {}
    return np.array([given.get(label, 1.0) for label in labels], dtype=np.float32)
