"""What is left to do: the store's listing, less what the table already holds for this model.

Both sides go to Parquet on the driver's disk and meet in DuckDB, which spills: memory does not grow with the store. The
result lies in chunks below the table's `_labelmill` folder, where every node can read its share.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelmill.label.row import FINAL, ITEM_SCHEMA
from labelmill.label.table import LabelTable
from labelmill.storage import Store, open_store

__all__ = ["Todo", "list_pictures", "plan_todo", "settings_digest"]

_CHUNKS_A_PART = 16
_MEMORY = "2GB"
# DuckDB reads Parquet in parallel by row group, and keeps to its memory limit when those are small.
_ROW_GROUP = 100_000
# Members of a shard lie together in the order of their bytes, so that they are read together.
_SHARD = "regexp_extract(uri, '(?is)^(.*?\\.(tar|parquet))#', 1)"
_NEIGHBOURS = f'CASE WHEN "offset" IS NULL THEN uri ELSE {_SHARD} END, "offset", uri'


@dataclass(frozen=True)
class Todo:
    """The pictures of one run, cut into chunks of `chunk_rows` (the last may be shorter), to be read from any node."""

    folder: str
    num_rows: int
    chunk_rows: int
    listed: int

    @property
    def num_chunks(self) -> int:
        return -(-self.num_rows // self.chunk_rows)

    def read(self, chunk: int) -> pa.Table:
        """The rows of one chunk (ITEM_SCHEMA)."""
        part = _read_part(self.folder, chunk // _CHUNKS_A_PART)
        return part.slice((chunk % _CHUNKS_A_PART) * self.chunk_rows, self.chunk_rows)

    def remove(self) -> None:
        """Delete the chunks: the table has their rows now."""
        store = open_store(self.folder)
        for part in range(-(-self.num_chunks // _CHUNKS_A_PART)):
            store.delete(_part_key(part))


@lru_cache(maxsize=2)  # a worker's chunks come in order, so it reads each part once
def _read_part(folder: str, part: int) -> pa.Table:
    return pq.read_table(io.BytesIO(open_store(folder).read(_part_key(part))))


def _part_key(part: int) -> str:
    return f"todo-{part:06d}.parquet"


def settings_digest(*, scores: str, max_pixels: int) -> str:
    """16 hex digits of what decides a row beside its picture and the bundle. Both engines answer in f32 alike."""
    settings = {"max_pixels": max_pixels, "precision": "f32", "scores": scores}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def list_pictures(items: Iterator[pa.RecordBatch], file: Path) -> int:
    """Stream the items of an inventory to a Parquet file; returns how many there are."""
    with pq.ParquetWriter(file, ITEM_SCHEMA, compression="zstd") as writer:
        return _write_batches(writer, items)


def plan_todo(
    items: Iterator[pa.RecordBatch], table: LabelTable, bundle_digest: str, settings: str, *, store: Store, run_id: str
) -> Todo:
    """Subtract from the items (ITEM_SCHEMA) the rows that are final for bundle and settings; chunk the rest."""
    with TemporaryDirectory(prefix="labelmill-plan-") as name:
        listing, done = Path(name, "listing.parquet"), Path(name, "done.parquet")
        listed = list_pictures(items, listing)
        _write_done(table, bundle_digest, settings, done)
        connection = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": name, "threads": 2})
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(
            "CREATE TABLE todo AS SELECT DISTINCT ON (l.uri) l.* FROM read_parquet(?) AS l "
            "ANTI JOIN read_parquet(?) AS d ON l.uri = d.uri AND l.etag = d.etag",
            [str(listing), str(done)],
        ).fetchall()
        [(num_rows,)] = connection.execute("SELECT count(*) FROM todo").fetchall()
        chunk_rows = _chunk_rows(num_rows)
        rows = connection.sql(f"SELECT * FROM todo ORDER BY {_NEIGHBOURS}").to_arrow_reader(_ROW_GROUP)
        _write_parts(open_store(store.address(f"runs/{run_id}")), rows, chunk_rows * _CHUNKS_A_PART)
        connection.close()
    return Todo(store.address(f"runs/{run_id}"), num_rows, chunk_rows, listed)


def _write_done(table: LabelTable, bundle_digest: str, settings: str, file: Path) -> None:
    schema = pa.schema([("uri", pa.string()), ("etag", pa.string())])
    columns = [*schema.names, "status", "bundle_digest", "settings_digest"]
    final = (
        (pc.field("bundle_digest") == bundle_digest)
        & (pc.field("settings_digest") == settings)
        & pc.field("status").isin(list(FINAL))
    )
    rows = table.batches(columns, bundle_digest=bundle_digest, settings_digest=settings)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        _write_batches(writer, (batch.filter(final) for batch in rows))


def _write_batches(writer: pq.ParquetWriter, batches: Iterator[pa.RecordBatch]) -> int:
    """Gather small batches into row groups of a fixed size."""
    count, waiting, num_waiting = 0, [], 0
    for batch in batches:
        waiting.append(batch.select(writer.schema.names).cast(writer.schema))
        num_waiting += batch.num_rows
        count += batch.num_rows
        if num_waiting >= _ROW_GROUP:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=_ROW_GROUP)
            waiting, num_waiting = [], 0
    if waiting:
        writer.write_table(pa.Table.from_batches(waiting), row_group_size=_ROW_GROUP)
    return count


def _chunk_rows(num_rows: int) -> int:
    """Small enough that all workers end together and little is lost with one of them, large enough for few files."""
    return max(64, min(2048, num_rows // 128))


def _write_parts(store: Store, batches: Iterator[pa.RecordBatch], part_rows: int) -> None:
    part, waiting = 0, ITEM_SCHEMA.empty_table()
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch]).cast(ITEM_SCHEMA)])
        while waiting.num_rows >= part_rows:
            _write_part(store, part, waiting.slice(0, part_rows))
            part, waiting = part + 1, waiting.slice(part_rows)
    if waiting.num_rows:
        _write_part(store, part, waiting)


def _write_part(store: Store, part: int, rows: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    store.write(_part_key(part), buffer.getvalue())
