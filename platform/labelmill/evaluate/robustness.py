"""How much worse a model gets as pictures get worse."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.dataset import Examples
from labelmill.errors import DataError, ImageError
from labelmill.images.corrupt import CORRUPTIONS, corrupted
from labelmill.images.transform import evaluation_pixels
from labelmill.metrics import evaluate
from labelmill.model.labeler import Labeler
from labelmill.storage import read_pictures

__all__ = ["measure_robustness"]

_NUMBERS = ("accuracy", "macro_f1", "map", "ece")
_NUM_PICTURES_AT_ONCE = 64

Answers = list[NDArray[np.float32]]  # confidences [L] of one picture after another


def measure_robustness(
    labeler: Labeler, examples: Examples, *, num_pictures: int, max_pixels: int, seed: int = 0
) -> dict[str, Any]:
    """Metrics on a random part of the pictures as they are and after each corruption, as described in
    `labelmill.evaluate.evaluation`. Pictures that cannot be read are passed over; DataError when none can."""
    rng = np.random.default_rng(seed)
    chosen = examples.take(np.sort(rng.permutation(len(examples))[:num_pictures]))
    kept: list[int] = []
    answers: dict[tuple[str, int], Answers] = {key: [] for key in _conditions()}
    for start in range(0, len(chosen), _NUM_PICTURES_AT_ONCE):
        rows = np.arange(start, min(start + _NUM_PICTURES_AT_ONCE, len(chosen)))
        pixels = _pixels(labeler, chosen.take(rows), max_pixels)
        kept += [int(rows[index]) for index in pixels]
        for (name, strength), found in answers.items() if pixels else ():
            seen = [each if name == "clean" else corrupted(each, name, strength, rng) for each in pixels.values()]
            found.extend(labeler.confidences(np.stack(seen)))
    if not kept:
        raise DataError(f"none of {len(chosen)} pictures can be read to measure the model on: check the labelled set.")
    card, targets = labeler.bundle, chosen.targets[kept]
    numbers = {
        key: {name: values[name] for name in _NUMBERS}
        for key, found in answers.items()
        for values in [evaluate(card.task, card.labels, targets, np.stack(found), card.thresholds)]
    }
    return {"num_pictures": len(kept), "clean": numbers["clean", 0], **_by_corruption(numbers)}


def _conditions() -> list[tuple[str, int]]:
    return [("clean", 0), *((name, strength) for name in CORRUPTIONS for strength in range(1, 6))]


def _pixels(labeler: Labeler, examples: Examples, max_pixels: int) -> dict[int, NDArray[np.uint8]]:
    """What the network sees of each picture that can be read, by its place."""
    found = {}
    items = list(zip(examples.uris.to_pylist(), examples.etags.to_pylist(), strict=True))
    for index, data in enumerate(read_pictures(items)):
        if isinstance(data, bytes):
            try:
                found[index], _, _ = evaluation_pixels(data, labeler.bundle.preprocessing, max_pixels=max_pixels)
            except ImageError:
                continue  # the pass over all pictures has named it
    return found


def _by_corruption(numbers: dict[tuple[str, int], dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [
            {"strength": strength, "amount": corruption.amounts[strength - 1], "unit": corruption.unit}
            | numbers[name, strength]
            for strength in range(1, 6)
        ]
        for name, corruption in CORRUPTIONS.items()
    }
