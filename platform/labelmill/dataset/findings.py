"""What is worth knowing about a training set before anything learns from it."""

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.dataset.duplicates import connected, find_duplicates
from labelmill.dataset.examples import Examples
from labelmill.dataset.survey import survey
from labelmill.dataset.training_set import TrainingSet
from labelmill.spec import TrainSpec

__all__ = ["Findings", "inspect"]

logger = logging.getLogger(__name__)

FEWEST_TO_MEASURE = 10  # positives; with ten, the 95% interval of a recall (Wilson) is up to 0.53 wide
_NUM_GROUPS_SHOWN = 50
_NUM_PICTURES_SHOWN = 8


@dataclass(frozen=True)
class Findings:
    """`unreadable` says why, by uri. `content` are plain JSON values for the bundle's metrics:

    rare_labels   labels with fewer than ten positive pictures to measure them by: label, train, validation, test
    sources       images, weight, num_pictures and share of an epoch of each further source
    duplicates    None unless they were looked for; else num_exact and num_near (pictures that repeat another one),
                  num_in_train (validation and test pictures with a twin among the training pictures),
                  num_conflicting (groups of twins whose labels differ), num_groups, and the first groups: pictures
                  (uri, split, labels), num_pictures, exact, across_splits, conflicting
    """

    content: dict[str, Any]
    unreadable: dict[str, str] = field(default_factory=dict)


def inspect(spec: TrainSpec, training_set: TrainingSet) -> Findings:
    """Look for what the report should tell. UnavailableError: the store is down."""
    content: dict[str, Any] = {"rare_labels": _rare_labels(training_set), "sources": _sources(spec, training_set)}
    if spec.data.duplicates == "ignore":
        return Findings(content | {"duplicates": None})
    everything = Examples.concatenated(
        [Examples(part.uris, part.etags, part.targets) for part in training_set.splits().values()]
    )
    seen = survey(everything.uris, everything.etags, max_pixels=spec.max_pixels)
    links = find_duplicates(seen)
    roots = connected(len(everything), *links.pairs)
    content["duplicates"] = found = _duplicates(training_set, everything, roots, links.exact)
    if any(found["num_in_train"].values()):
        logger.warning(
            "%s look like a training picture, so the metrics flatter the model: see the report, or set "
            "data.duplicates: together",
            " and ".join(f"{count} {split} pictures" for split, count in found["num_in_train"].items()),
        )
    return Findings(content, seen.unreadable)


def _rare_labels(training_set: TrainingSet) -> list[dict[str, Any]]:
    split = "test" if len(training_set.test) else "validation"
    rare = [
        {"label": label, **counts}
        for label, counts in training_set.num_positives().items()
        if counts[split] < FEWEST_TO_MEASURE
    ]
    if rare:
        logger.warning(
            "%d labels have fewer than %d %s pictures, too few to say how good they are: %s",
            len(rare),
            FEWEST_TO_MEASURE,
            split,
            ", ".join(str(row["label"]) for row in rare[:5]) + (", …" if len(rare) > 5 else ""),
        )
    return rare


def _sources(spec: TrainSpec, training_set: TrainingSet) -> list[dict[str, Any]]:
    total = 1 + sum(source.weight for source in spec.data.sources)
    return [
        {
            "images": source.images,
            "weight": source.weight,
            "num_pictures": count,
            "share": round(source.weight / total, 4),
        }
        for source, count in zip(spec.data.sources, training_set.num_extra, strict=True)
    ]


def _duplicates(
    training_set: TrainingSet, everything: Examples, roots: NDArray[np.int64], exact: NDArray[np.int64]
) -> dict[str, Any]:
    names = list(training_set.splits())
    split_of = np.repeat(np.arange(len(names)), [len(part) for part in training_set.splits().values()])
    repeating = np.flatnonzero(roots != np.arange(len(roots)))
    groups = _groups(roots)
    exactly = np.isin(np.arange(len(roots)), exact[1])
    in_train = np.zeros(len(roots), dtype=bool)
    in_train[roots[split_of == 0]] = True
    described = [
        _group(training_set.labels, everything, group, [names[split_of[place]] for place in group], exactly)
        for group in groups
    ]
    described.sort(key=lambda group: (not group["across_splits"], not group["conflicting"], -group["num_pictures"]))
    return {
        "num_exact": int(exactly.sum()),
        "num_near": len(repeating) - int(exactly.sum()),
        "num_in_train": {
            name: int((in_train[roots] & (split_of == index)).sum()) for index, name in enumerate(names) if index
        },
        "num_conflicting": sum(group["conflicting"] for group in described),
        "num_groups": len(described),
        "groups": described[:_NUM_GROUPS_SHOWN],
    }


def _groups(roots: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The places of all pictures that are not alone, by group."""
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    return [group for group in np.split(order, starts[1:]) if len(group) > 1]


def _group(
    labels: tuple[str, ...],
    everything: Examples,
    group: NDArray[np.int64],
    splits: list[str],
    exactly: NDArray[np.bool_],
) -> dict[str, Any]:
    targets = everything.targets[group]
    uris = everything.uris.take(pa.array(group[:_NUM_PICTURES_SHOWN])).to_pylist()
    return {
        "num_pictures": len(group),
        "exact": bool(exactly[group[1:]].all()),
        "across_splits": len(set(splits)) > 1,
        "conflicting": bool((targets != targets[0]).any()),
        "pictures": [
            {"uri": uri, "split": split, "labels": [name for name, there in zip(labels, row, strict=True) if there]}
            for uri, split, row in zip(uris, splits, targets, strict=False)
        ],
    }
