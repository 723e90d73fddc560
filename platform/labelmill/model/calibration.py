"""From logits to confidences that mean what they say: the one place for bulk, endpoint, training and evaluation.

None                                            logits as they are
{"temperature": t}                              logits / t (Guo et al., 2017)
{"slopes": [...], "intercepts": [...]}          slope * logit + intercept, a pair for each label (Platt, 1999)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import BundleError

__all__ = ["Calibration", "check_calibration", "confidences", "lines"]

Calibration = Mapping[str, float | Sequence[float]]


def confidences(task: str, logits: NDArray[np.float32], calibration: Calibration | None) -> NDArray[np.float32]:
    """Confidences [B, L] of logits [B, L], both float32: multi_class sums to one, the others stand each alone."""
    if calibration:
        slopes, intercepts = lines(calibration, logits.shape[1])
        logits = logits * slopes + intercepts
    return _softmax(logits) if task == "multi_class" else _sigmoid(logits)


def lines(calibration: Calibration | None, num_labels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slope and intercept of each label, float32 [L], whatever the form: for networks that hold their calibration."""
    given: Mapping[str, Any] = calibration or {}
    slopes = given.get("slopes", 1 / given.get("temperature", 1.0))
    intercepts = given.get("intercepts", 0.0)
    return (
        np.full(num_labels, slopes, dtype=np.float32),
        np.full(num_labels, intercepts, dtype=np.float32),
    )


def check_calibration(calibration: Any, num_labels: int) -> None:
    """BundleError when it is none of the three forms, or would turn the order of confidences around."""
    if not calibration:
        return
    match calibration:
        case {"temperature": temperature, **rest} if not rest and _numbers([temperature]) and temperature > 0:
            return
        case {"slopes": list(slopes), "intercepts": list(intercepts), **rest} if not rest:
            numbers = _numbers([*slopes, *intercepts])
            if numbers and len(slopes) == len(intercepts) == num_labels and min(slopes) > 0:
                return
    raise BundleError(
        'calibration of a bundle must be null, {"temperature": a positive number}, or {"slopes": positive numbers, '
        f'"intercepts": numbers}} with one each for {num_labels} labels, got {str(calibration)[:200]}.'
    )


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and np.isfinite(value) for value in values)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # By tanh, which does not overflow where exp(-logits) would.
    confidences: NDArray[np.float32] = np.float32(0.5) * (np.tanh(np.float32(0.5) * logits) + np.float32(1))
    return confidences


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidences: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return confidences
