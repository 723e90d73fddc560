"""Which of the listed pictures count: patterns, a sample, a limit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.label.inventory.patterns import keys_below, met
from labelmill.label.inventory.source import Source

__all__ = ["Narrowing"]


@dataclass(frozen=True)
class Narrowing:
    """What a spec says of `include`, `exclude`, `sample` and `limit`, in the order in which they are applied."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    sample: float | None
    limit: int | None

    def __str__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value}
        return ", ".join(f"{name} {_shown(value)}" for name, value in given.items())

    @property
    def is_some(self) -> bool:
        return bool(self.by_pattern or self.sample is not None or self.limit is not None)

    @property
    def by_pattern(self) -> bool:
        return bool(self.include or self.exclude)

    def of(self, source: Source) -> Iterator[pa.RecordBatch]:
        """The items of the source that are wanted; some batches may be empty. Reads no further than `limit` needs."""
        left = self.limit
        for batch in source.items(in_order=left is not None):
            kept = self._chosen(batch, source.base)
            if left is None:
                yield kept
                continue
            yield kept.slice(0, left)
            left -= min(left, kept.num_rows)
            if not left:
                return

    def _chosen(self, batch: pa.RecordBatch, base: str) -> pa.RecordBatch:
        if self.by_pattern:
            keys = keys_below(batch, base)
            if self.include:
                batch, keys = _filtered(batch, keys, met(keys, self.include))
            if self.exclude:
                batch, keys = _filtered(batch, keys, pc.invert(met(keys, self.exclude)))
        if self.sample is not None:
            batch = batch.filter(pa.array([_share(uri) < self.sample for uri in batch["uri"].to_pylist()], pa.bool_()))
        return batch


def _filtered(batch: pa.RecordBatch, keys: pa.Array, kept: pa.Array) -> tuple[pa.RecordBatch, pa.Array]:
    return batch.filter(kept), keys.filter(kept)


def _share(uri: str) -> float:
    """A number from 0 to 1 that belongs to this uri for ever."""
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=8).digest()) / 2**64


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
