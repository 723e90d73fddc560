"""What every inventory is read from, and how the version of a picture is found where its source does not know it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.errors import StorageError
from labelmill.label.inventory.item import ITEM_SCHEMA
from labelmill.storage import ObjectInfo, read_infos

__all__ = ["Source", "item_batch", "with_versions"]

_INFOS_AT_ONCE = 2048


class Source(ABC):
    """Where pictures are listed. `describe` names it, `base` is what a pattern leaves out of a uri, and `sought` says
    what it should have held.
    """

    describe: str
    base: str
    sought: str
    unseen: tuple[str, ...] = ()
    """Addresses at or below which there may be more than the last listing showed: of links that lead nowhere."""

    @abstractmethod
    def items(self, *, in_order: bool) -> Iterator[pa.RecordBatch]:
        """Batches of ITEM_SCHEMA; an etag that the source does not know is null. With `in_order` always the same."""

    @abstractmethod
    def probe(self) -> str:
        """What is found at a first look, in a few words."""


def item_batch(**columns: pa.Array | None) -> pa.RecordBatch:
    """A batch of ITEM_SCHEMA from the columns that are known."""
    rows = len(columns["uri"])  # type: ignore[arg-type]
    arrays = [
        pa.nulls(rows, field.type) if (values := columns.get(field.name)) is None else values.cast(field.type)
        for field in ITEM_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=ITEM_SCHEMA)


def with_versions(items: pa.RecordBatch) -> pa.RecordBatch:
    """Ask the store for the etag of every item that has none: it is part of what makes a row final.

    Size and date then come from the store as well. Where it does not tell (no such object, forbidden), the etag is ""
    and the row will say why.
    """
    unknown = pc.is_null(items["etag"])
    if not pc.any(unknown).as_py():
        return items
    table = pa.Table.from_batches([items])
    found = pa.concat_tables([table.filter(pc.invert(unknown)), *_asked(table.filter(unknown))])
    # in their order, since of two rows of one picture the later counts
    came_from = pa.concat_arrays([pc.indices_nonzero(pc.invert(unknown)), pc.indices_nonzero(unknown)])
    return found.take(pc.array_sort_indices(came_from)).combine_chunks().to_batches()[0]


def _asked(items: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, items.num_rows, _INFOS_AT_ONCE):
        part = items.slice(start, _INFOS_AT_ONCE)
        found = read_infos(part["uri"].to_pylist())
        rows = [_versioned(row, info) for row, info in zip(part.to_pylist(), found, strict=True)]
        yield pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)


def _versioned(row: dict[str, object], info: ObjectInfo | StorageError) -> dict[str, object]:
    if isinstance(info, StorageError):
        return {**row, "etag": ""}
    return {**row, "size_bytes": info.size_bytes, "etag": info.etag, "modified_at": info.modified_at}
