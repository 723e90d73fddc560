"""The samples that the receipt shows: those that the workers chose, joined as if one had chosen them all."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence

from labelmill.label.work.samples import Sample

__all__ = ["Sheet"]

_MAX_LABELS_SHOWN = 40


class Sheet:
    """On the driver: the samples of the whole run, `per_group` of each failure and of at most 40 labels."""

    def __init__(self, per_group: int) -> None:
        self._per_group = max(1, per_group)
        self._labels: dict[str, list[Sample]] = {}
        self._failures: dict[str, list[Sample]] = {}

    def add(self, samples: Sequence[Sample], counts: Mapping[str, int]) -> None:
        """`counts` are the run's pictures by label so far: when there are too many labels the most frequent stay."""
        for sample in samples:
            groups = self._labels if sample.status == "ok" else self._failures
            kept = groups.setdefault(sample.group, [])
            if sample.uri not in {other.uri for other in kept}:  # a repeated chunk offers its pictures again
                insort(kept, sample, key=lambda other: other.rank)
                del kept[self._per_group :]
        while len(self._labels) > _MAX_LABELS_SHOWN:
            del self._labels[min(self._labels, key=lambda label: (counts.get(label, 0), label))]

    def labels(self, counts: Mapping[str, int]) -> dict[str, list[Sample]]:
        """By label, the most frequent first and "", pictures without any label, last."""
        order = sorted(self._labels, key=lambda label: (label == "", -counts.get(label, 0), label))
        return {label: self._labels[label] for label in order}

    @property
    def failures(self) -> dict[str, list[Sample]]:
        return self._failures

    def reasons(self) -> list[dict[str, str]]:
        """A few failures of each status: status, uri, error."""
        return [
            {"status": sample.status, "uri": sample.uri, "error": sample.error or ""}
            for samples in self._failures.values()
            for sample in samples
        ]
