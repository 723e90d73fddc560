"""How good a bundle is on given pictures, answered by the very Labeler that labels in bulk and online."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.dataset import Examples
from labelmill.errors import DataError, StorageError
from labelmill.metrics import evaluate
from labelmill.model.bundle import ModelCard
from labelmill.model.labeler import Answer, Labeler, label_together
from labelmill.storage import read_pictures

__all__ = ["Answers", "answer", "answer_together", "measure"]

_NUM_PICTURES_AT_ONCE = 256


@dataclass(frozen=True)
class Answers:
    """The pictures that could be labelled with their logits [N, L], and uri -> reason of the others. `features` [N, D]
    are there where the labeler was asked for embeddings.

    A card turns logits into confidences, so one pass over the pictures serves a model before and after calibration.
    """

    examples: Examples
    logits: NDArray[np.float32]
    unreadable: dict[str, str]
    features: NDArray[np.float16] | None = None

    @property
    def targets(self) -> NDArray[np.uint8]:
        return self.examples.targets


def answer(labeler: Labeler, examples: Examples) -> Answers:
    """Label the pictures of a split. DataError when none of them can be read."""
    return answer_together([labeler], examples)[0]


def answer_together(labelers: Sequence[Labeler], examples: Examples) -> list[Answers]:
    """What each labeler answers to the same pictures, which are fetched and decoded once. DataError when none of them
    can be read."""
    kept: list[int] = []
    answers: list[list[Answer]] = []
    unreadable: dict[str, str] = {}
    uris = examples.uris.to_pylist()
    for index, found in _answered(labelers, examples):
        if isinstance(found, StorageError):
            unreadable[uris[index]] = str(found)
        elif refused := next((given for given in found if given.logits is None), None):
            unreadable[uris[index]] = f"{refused.status}: {refused.error}"
        else:
            kept.append(index)
            answers.append(found)
    if not kept:
        raise DataError(
            f"none of {len(uris)} pictures can be read to measure the model on; the first: {_first(unreadable)}"
        )
    there = examples.take(np.array(kept))
    return [_stacked(there, given, unreadable) for given in zip(*answers, strict=True)]


def measure(card: ModelCard, answers: Answers) -> dict[str, Any]:
    """The metrics of `labelmill.metrics.evaluate`."""
    return evaluate(card.task, card.labels, answers.targets, card.confidences(answers.logits), card.thresholds)


def _stacked(examples: Examples, answers: Sequence[Answer], unreadable: dict[str, str]) -> Answers:
    features = [answer.embedding for answer in answers if answer.embedding is not None]
    logits = [answer.logits for answer in answers if answer.logits is not None]
    return Answers(examples, np.stack(logits), unreadable, np.stack(features) if features else None)


def _answered(labelers: Sequence[Labeler], examples: Examples) -> Iterator[tuple[int, list[Answer] | StorageError]]:
    """The place of each picture and what became of it: those that were fetched of a chunk come first."""
    items = list(zip(examples.uris.to_pylist(), examples.etags.to_pylist(), strict=True))
    for start in range(0, len(items), _NUM_PICTURES_AT_ONCE):
        read = list(enumerate(read_pictures(items[start : start + _NUM_PICTURES_AT_ONCE]), start))
        yield from ((index, data) for index, data in read if isinstance(data, StorageError))
        fetched = {index: data for index, data in read if isinstance(data, bytes)}
        answers = label_together(labelers, list(fetched.values()))
        yield from zip(fetched, map(list, zip(*answers, strict=True)), strict=True)


def _first(unreadable: dict[str, str]) -> str:
    return next((f"{uri}: {reason}" for uri, reason in unreadable.items()), "there are none.")
