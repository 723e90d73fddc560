"""Labels that are likely wrong: the model, which never learnt from them, confidently says otherwise."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.dataset.examples import Examples

__all__ = ["find_suspects", "left_out_confidences"]

_NUM_SHOWN = 100
_RIDGE = 0.01  # of the features' mean variance


def find_suspects(
    task: str, labels: tuple[str, ...], answered: Mapping[str, tuple[Examples, NDArray[np.float32]]]
) -> dict[str, Any]:
    """The pictures whose labels confident learning doubts (Northcutt, Jiang, Chuang, Confident Learning: Estimating
    Uncertainty in Dataset Labels, 2021; by cleanlab), the most doubtful first.

    `answered` has the pictures of each split and a model's confidences [N, L] in them; the model must not have learnt
    from these pictures. With binary and multi_label each label is a question of its own. Plain JSON values:
    num_pictures looked at, num of suspects, and the first hundred of them under pictures: uri, split, given (labels),
    suggested (labels), quality (confidence in what is given, 0 to 1).
    """
    splits = np.repeat(list(answered), [len(examples) for examples, _ in answered.values()])
    uris = pa.concat_arrays([examples.uris for examples, _ in answered.values()])
    truth = np.concatenate([examples.targets.astype(bool) for examples, _ in answered.values()])
    confidences = np.concatenate([found for _, found in answered.values()])
    judge = _of_one_label if task == "multi_class" else _of_each_label
    doubtful, suggested, quality = judge(truth, confidences)
    worst = doubtful[np.argsort(quality[doubtful], kind="stable")]

    def names(row: NDArray[np.bool_]) -> list[str]:
        return [label for label, there in zip(labels, row, strict=True) if there]

    pictures = [
        {
            "uri": uris[row].as_py(),
            "split": str(splits[row]),
            "given": names(truth[row]),
            "suggested": names(suggested[row]),
            "quality": round(float(quality[row]), 4),
        }
        for row in worst[:_NUM_SHOWN].tolist()
    ]
    return {"num_pictures": len(truth), "num": len(worst), "pictures": pictures}


def left_out_confidences(task: str, features: NDArray[np.float16], targets: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the features [N, D] of all other pictures say of each one's labels, [N, L] between 0 and 1.

    A ridge regression of the targets [N, L] with each picture left out in turn, which takes one regression: the error
    of a picture left out is its error over one minus its leverage (Cook, Weisberg, Residuals and Influence in
    Regression, 1982). No more than a ranking: what is 0.7 here need not be right seven times in ten.
    """
    rows = features.astype(np.float64)
    rows -= rows.mean(axis=0)
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    spread = rows.T @ rows
    penalty = np.full(len(spread), _RIDGE * np.trace(spread[:-1, :-1]) / max(1, len(spread) - 1) + 1e-9)
    penalty[-1] = 1e-9
    solved = np.linalg.solve(spread + np.diag(penalty), rows.T)  # [D + 1, N]
    leverages = np.einsum("nd,dn->n", rows, solved)[:, None]
    errors = targets - rows @ (solved @ targets)
    found = np.clip(targets - errors / np.maximum(1 - leverages, 1e-6), 1e-3, 1 - 1e-3)
    if task == "multi_class":
        found /= found.sum(axis=1, keepdims=True)
    confidences: NDArray[np.float32] = found.astype(np.float32)
    return confidences


Doubts = tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]  # places [M], suggested [N, L], quality [N]


def _of_one_label(truth: NDArray[np.bool_], confidences: NDArray[np.float32]) -> Doubts:
    given, found = truth.argmax(axis=1), confidences.argmax(axis=1)
    suggested = np.arange(truth.shape[1]) == found[:, None]
    quality = confidences[np.arange(len(given)), given].astype(np.float64)
    doubtful = np.flatnonzero(_doubted(given, confidences) & (given != found))
    return doubtful, suggested, quality


def _of_each_label(truth: NDArray[np.bool_], confidences: NDArray[np.float32]) -> Doubts:
    doubted = np.zeros(truth.shape, dtype=bool)
    for column in range(truth.shape[1]):
        yes = confidences[:, column]
        doubted[:, column] = _doubted(truth[:, column].astype(np.int64), np.stack([1 - yes, yes], axis=1))
    certainty = np.where(truth, confidences, 1 - confidences).astype(np.float64)
    quality = np.where(doubted, certainty, 1.0).min(axis=1)
    return np.flatnonzero(doubted.any(axis=1)), truth ^ doubted, quality


def _doubted(given: NDArray[np.int64], confidences: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether cleanlab doubts each label, [N]; `given` [N] are columns of `confidences` [N, L]."""
    if len(np.unique(given)) < 2:
        return np.zeros(len(given), dtype=bool)  # nothing to be confused with
    from cleanlab.filter import find_label_issues  # takes 2 s to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that none of these pictures carries: the findings name those
        doubted: NDArray[np.bool_] = find_label_issues(given, confidences.astype(np.float64), n_jobs=1)
    return doubted
