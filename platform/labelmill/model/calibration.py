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

__all__ = ["Calibration", "check_calibration", "confidences"]

Calibration = Mapping[str, float | Sequence[float]]


def confidences(task: str, logits: NDArray[np.float32], calibration: Calibration | None) -> NDArray[np.float32]:
    """Confidences [B, L] of logits [B, L], both float32: multi_class sums to one, the others stand each alone."""
    match calibration:
        case {"temperature": float() | int() as temperature}:
            logits = logits / np.float32(temperature)
        case {"slopes": slopes, "intercepts": intercepts}:
            logits = logits * np.asarray(slopes, np.float32) + np.asarray(intercepts, np.float32)
    return _softmax(logits) if task == "multi_class" else _sigmoid(logits)


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
