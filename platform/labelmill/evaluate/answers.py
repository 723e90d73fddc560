"""How good a bundle is on given pictures, answered by the very Labeler that labels in bulk and online."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.dataset import Examples
from labelmill.errors import DataError, StorageError
from labelmill.metrics import evaluate
from labelmill.model.bundle import ModelCard
from labelmill.model.labeler import Labeler
from labelmill.storage import read_pictures

__all__ = ["Answers", "answer", "measure"]

_NUM_PICTURES_AT_ONCE = 256


@dataclass(frozen=True)
class Answers:
    """Targets and confidences [N, L] of the pictures that could be labelled, and uri -> reason of the others."""

    targets: NDArray[np.uint8]
    confidences: NDArray[np.float32]
    unreadable: dict[str, str]


def answer(labeler: Labeler, examples: Examples) -> Answers:
    """Label the pictures of a split."""
    kept: list[int] = []
    confidences: list[NDArray[np.float32]] = []
    unreadable: dict[str, str] = {}
    uris, etags = examples.uris.to_pylist(), examples.etags.to_pylist()
    for start in range(0, len(uris), _NUM_PICTURES_AT_ONCE):
        chunk = range(start, min(start + _NUM_PICTURES_AT_ONCE, len(uris)))
        read = read_pictures([(uris[index], etags[index]) for index in chunk])
        here = {index: data for index, data in zip(chunk, read, strict=True) if isinstance(data, bytes)}
        unreadable |= {
            uris[i]: str(data) for i, data in zip(chunk, read, strict=True) if isinstance(data, StorageError)
        }
        for index, given in zip(here, labeler.label(list(here.values())), strict=True):
            if given.confidences is None:
                unreadable[uris[index]] = f"{given.status}: {given.error}"
            else:
                kept.append(index)
                confidences.append(given.confidences)
    if not kept:
        raise DataError(
            f"none of {len(uris)} pictures can be read to measure the model on; the first: {_first(unreadable)}"
        )
    return Answers(examples.targets[kept], np.stack(confidences), unreadable)


def measure(card: ModelCard, answers: Answers) -> dict[str, Any]:
    """The metrics of `labelmill.metrics.evaluate`."""
    return evaluate(card.task, card.labels, answers.targets, answers.confidences, card.thresholds)


def _first(unreadable: dict[str, str]) -> str:
    return next((f"{uri}: {reason}" for uri, reason in unreadable.items()), "there are none.")
