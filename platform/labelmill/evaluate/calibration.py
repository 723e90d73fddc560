"""Confidences that mean what they say: how the logits of a network must be changed, found on validation pictures."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from labelmill.model.calibration import Calibration

__all__ = ["fit_calibration"]

Float = NDArray[np.float64]

_SLOPES = (0.01, 20.0)  # 1 / temperature: beyond these a fit says that there is nothing to go by
_NUM_HALVINGS = 40
_NUM_NEWTON_STEPS = 100


def fit_calibration(
    task: str, method: str, targets: NDArray[np.uint8], logits: NDArray[np.float32]
) -> Calibration | None:
    """The calibration of least log loss for targets and logits [N, L]. `method`: none, temperature, per_label or auto.

    One temperature scales all logits and so keeps every ranking (Guo et al., 2017). per_label gives each label a slope
    and an intercept of its own (Platt, 1999), which also undoes what class weights and asymmetric losses do to the
    level of confidences; a label with fewer than two pictures on either side, or whose confidences run against the
    truth, keeps the common temperature. auto is temperature for multi_class, whose confidences sum to one, and
    per_label for the others. Targets are drawn a little towards the middle, as by Platt: so much as one more picture
    would say, or else a few pictures that are all right would make the model sure of everything.
    """
    if method == "none":
        return None
    truth, given = targets.astype(bool), logits.astype(np.float64)
    if task == "multi_class":
        return {"temperature": 1 / _scale_of_classes(truth, given)}
    softened = _softened(truth)
    scale = _root(lambda slope: float(((_sigmoid(slope * given) - softened) * given).sum()))
    if method == "temperature":
        return {"temperature": 1 / scale}
    slopes, intercepts = _platt(softened, given)
    known = (np.minimum(truth.sum(axis=0), (~truth).sum(axis=0)) >= 2) & (slopes > _SLOPES[0]) & (slopes < _SLOPES[1])
    return {"slopes": np.where(known, slopes, scale).tolist(), "intercepts": np.where(known, intercepts, 0.0).tolist()}


def _scale_of_classes(truth: NDArray[np.bool_], logits: Float) -> float:
    """The slope at which the softmax fits best: where the mean logit that it expects is the mean logit that is true."""
    num_pictures, num_classes = truth.shape
    rest = 1 / (num_pictures + 2)
    softened = np.where(truth, 1 - rest, rest / max(1, num_classes - 1))
    logits = logits - logits.max(axis=1, keepdims=True)
    wanted = float((softened * logits).sum())

    def excess(slope: float) -> float:
        powers = np.exp(slope * logits)
        return float(((powers * logits).sum(axis=1) / powers.sum(axis=1)).sum()) - wanted

    return _root(excess)


def _root(rising: Callable[[float], float]) -> float:
    """Where the derivative of the log loss by the slope is zero. The loss is convex, so it is there once at most; at
    an end of the range where it is not there."""
    low, high = np.log(_SLOPES)
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        if rising(float(np.exp(middle))) > 0:
            high = middle
        else:
            low = middle
    return float(np.exp((low + high) / 2))


def _platt(softened: Float, logits: Float) -> tuple[Float, Float]:
    """Slope and intercept [L] of each label by Newton's method, halving the steps that overshoot (Lin, Lin and Weng,
    2007: A Note on Platt's Probabilistic Outputs)."""
    spread = np.maximum(logits.std(axis=0), 1e-6)
    centre = logits.mean(axis=0)
    inputs = (logits - centre) / spread  # or else a step may be lost to rounding where logits lie far from zero
    slopes, intercepts = np.zeros(logits.shape[1]), _logit(softened.mean(axis=0))
    loss = _log_loss(softened, slopes * inputs + intercepts)
    for _ in range(_NUM_NEWTON_STEPS):
        by_slope, by_intercept = _newton_step(softened, inputs, slopes, intercepts)
        length = np.ones(len(slopes))
        for _ in range(_NUM_HALVINGS):
            new = _log_loss(softened, (slopes - length * by_slope) * inputs + intercepts - length * by_intercept)
            worse = new > loss
            if not worse.any():
                break
            length = np.where(worse, length / 2, length)
        length = np.where(worse, 0.0, length)
        slopes, intercepts = slopes - length * by_slope, intercepts - length * by_intercept
        gained, loss = loss - np.minimum(new, loss), np.minimum(new, loss)
        if (gained < 1e-9 * len(logits)).all():
            break
    return slopes / spread, intercepts - slopes * centre / spread


def _newton_step(softened: Float, inputs: Float, slopes: Float, intercepts: Float) -> tuple[Float, Float]:
    """[L] for slope and intercept: the inverse Hessian of the log loss times its gradient."""
    confidences = _sigmoid(slopes * inputs + intercepts)
    errors, weights = confidences - softened, confidences * (1 - confidences) + 1e-12
    slope_gradient, intercept_gradient = (errors * inputs).sum(axis=0), errors.sum(axis=0)
    both, slope_alone, intercept_alone = (
        (weights * inputs).sum(axis=0),
        (weights * inputs**2).sum(axis=0) + 1e-9,
        weights.sum(axis=0),
    )
    determinant = np.maximum(slope_alone * intercept_alone - both**2, 1e-12)
    return (
        (intercept_alone * slope_gradient - both * intercept_gradient) / determinant,
        (slope_alone * intercept_gradient - both * slope_gradient) / determinant,
    )


def _softened(truth: NDArray[np.bool_]) -> Float:
    positives = truth.sum(axis=0)
    negatives = len(truth) - positives
    softened: Float = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    return softened


def _log_loss(softened: Float, logits: Float) -> Float:
    """[L], summed over the pictures."""
    loss: Float = (np.logaddexp(0, logits) - softened * logits).sum(axis=0)
    return loss


def _logit(confidences: Float) -> Float:
    return np.log(confidences) - np.log1p(-confidences)


def _sigmoid(logits: Float) -> Float:
    confidences: Float = 0.5 * (np.tanh(0.5 * logits) + 1)
    return confidences
