"""The to-do list of a run: chunks of pictures below the table's `_labelmill` folder, to be read from any node."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa

from labelmill.label.inventory.item import ITEM_SCHEMA
from labelmill.label.todo.vanished import Vanished
from labelmill.parquet import parquet_bytes, read_parquet
from labelmill.storage import Store, open_store

__all__ = ["TODO_SCHEMA", "UNREAD_SCHEMA", "Todo", "write_todo"]

TODO_SCHEMA = ITEM_SCHEMA.append(pa.field("lacking", pa.int64()))
"""A picture to label: bit m of `lacking` is set where model m of the run has no final row for it."""
_KNOWN = [ITEM_SCHEMA.field(name) for name in ("uri", "size_bytes", "etag", "modified_at", "archive")]
UNREAD_SCHEMA = pa.schema([*_KNOWN, pa.field("model", pa.int32())])
"""A picture that gets a row without being read, and the number of the model whose row it is: it lies in an `archive`,
or, where that is null, is gone, and this is how it was last seen."""

_CHUNKS_A_PART = 16
_MIN_ROWS, _MAX_ROWS, _MAX_ROWS_LARGE = 64, 1024, 2048
_PART_ROWS = 100_000
_PART_ROWS_WIDE = 2048  # of whole rows of the table, which may hold scores and embeddings


@dataclass(frozen=True)
class Todo:
    """The pictures of one run, cut into chunks of `chunk_rows` (the last may be shorter), to be read from any node."""

    folder: str
    num_rows: int
    chunk_rows: int
    listed: int  # pictures, each counted once
    num_done: int = 0  # of these: that need no row
    num_gone: int = 0  # rows, one for each model of a picture
    num_archived: int = 0
    num_returned: int = 0
    num_held: int = 0  # pictures that the table holds below the listed prefix
    num_vanished: int = 0  # of these, listed no more
    vanished: Vanished | None = None  # so many are gone that nothing was written

    @property
    def num_chunks(self) -> int:
        return -(-self.num_rows // self.chunk_rows)

    def read(self, chunk: int) -> pa.Table:
        """The rows of one chunk (TODO_SCHEMA), ordered by shard, offset and uri."""
        part = _read_part(self.folder, _part_key(chunk // _CHUNKS_A_PART))
        return part.slice((chunk % _CHUNKS_A_PART) * self.chunk_rows, self.chunk_rows)

    def sample(self, num_rows: int) -> pa.Table:
        """So many rows drawn by chance, or all: of the same list always the same."""
        chosen = sorted(random.Random(0).sample(range(self.num_rows), min(num_rows, self.num_rows)))
        return pa.concat_tables(
            self.read(row // self.chunk_rows).slice(row % self.chunk_rows, 1) for row in chosen
        ).combine_chunks()

    def unread(self) -> Iterator[pa.Table]:
        """The pictures that get a row without being read (UNREAD_SCHEMA): first those that are gone, by model."""
        for part in range(self._unread_parts):
            yield _read_part(self.folder, _unread_key(part))

    def returned(self) -> Iterator[pa.Table]:
        """The rows (DATA_SCHEMA) of pictures that were deleted and are there again as they were."""
        for part in range(self._returned_parts):
            yield _read_part(self.folder, _returned_key(part))

    def remove(self) -> None:
        """Delete the chunks: the table has their rows now."""
        store = open_store(self.folder)
        for part in range(-(-self.num_chunks // _CHUNKS_A_PART)):
            store.delete(_part_key(part))
        for part in range(self._unread_parts):
            store.delete(_unread_key(part))
        for part in range(self._returned_parts):
            store.delete(_returned_key(part))

    @property
    def _unread_parts(self) -> int:
        return -(-(self.num_gone + self.num_archived) // _PART_ROWS)

    @property
    def _returned_parts(self) -> int:
        return -(-self.num_returned // _PART_ROWS_WIDE)


def write_todo(
    todo: Todo,
    rows: Iterator[pa.Table],
    unread: Iterator[pa.Table],
    returned: Iterator[pa.Table],
    *,
    large_chunks: Callable[[], bool],
) -> Todo:
    """Write the rows of `todo`, which knows how many there are (TODO_SCHEMA, in the order in which they are to be
    read), what gets a row unread (UNREAD_SCHEMA), and the rows that come back (DATA_SCHEMA). Whether chunks may be
    large is only asked when there are rows enough for it."""
    store, chunk_rows = open_store(todo.folder), _chunk_rows(todo.num_rows, large_chunks)
    _write_parts(store, rows, chunk_rows * _CHUNKS_A_PART, _part_key)
    num_gone = _write_parts(store, unread, _PART_ROWS, _unread_key) - todo.num_archived
    num_returned = _write_parts(store, returned, _PART_ROWS_WIDE, _returned_key)
    return replace(todo, chunk_rows=chunk_rows, num_gone=num_gone, num_returned=num_returned)


def _chunk_rows(num_rows: int, large_chunks: Callable[[], bool]) -> int:
    """Small enough that all workers end together and little is lost with one of them, large enough for few files."""
    wanted = max(_MIN_ROWS, num_rows // 128)
    return wanted if wanted <= _MAX_ROWS else min(wanted, _MAX_ROWS_LARGE if large_chunks() else _MAX_ROWS)


@lru_cache(maxsize=2)  # a worker's chunks come in order, so it reads each part once
def _read_part(folder: str, key: str) -> pa.Table:
    return read_parquet(open_store(folder).read(key))


def _part_key(part: int) -> str:
    return f"todo-{part:06d}.parquet"


def _unread_key(part: int) -> str:
    return f"unread-{part:06d}.parquet"


def _returned_key(part: int) -> str:
    return f"returned-{part:06d}.parquet"


def _write_parts(store: Store, tables: Iterator[pa.Table], part_rows: int, key: Callable[[int], str]) -> int:
    """Cut the rows into objects of `part_rows`; returns how many rows there are."""
    part, count = 0, 0
    waiting: pa.Table | None = None
    for table in tables:
        count += table.num_rows
        waiting = pa.concat_tables([waiting, table]) if waiting else table
        while waiting.num_rows >= part_rows:
            _write_part(store, key(part), waiting.slice(0, part_rows))
            part, waiting = part + 1, waiting.slice(part_rows)
    if waiting:
        _write_part(store, key(part), waiting)
    return count


def _write_part(store: Store, key: str, rows: pa.Table) -> None:
    store.write(key, parquet_bytes(rows))
