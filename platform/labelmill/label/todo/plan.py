"""What is left to do: what the inventory lists, less what the table already holds for the run's models.

The table's rows are reduced to keys of 13 bytes, the listing streams by and is looked up (`difference.py`), and
only what lacks a row is kept: in DuckDB, which spills. The result lies in chunks below the table's `_labelmill` folder,
where every node can read its share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.ahead import ahead
from labelmill.label.inventory.item import ITEM_SCHEMA
from labelmill.label.todo.difference import Index, TableKeys, Wanted, in_groups
from labelmill.label.todo.hashing import hashed, hashed_before
from labelmill.label.todo.room import full_disk_named
from labelmill.label.todo.settings import Settings
from labelmill.label.todo.todo import GONE_SCHEMA, TODO_SCHEMA, Todo, write_todo
from labelmill.storage import Store
from labelmill.table.table import LabelTable

__all__ = ["plan_todo"]

# Members of a shard lie together in the order of their bytes, so that they are read together.
_SHARD = "regexp_extract(uri, '(?is)^(.*?\\.(tar|parquet))#', 1)"
_NEIGHBOURS = f'CASE WHEN "offset" IS NULL THEN uri ELSE {_SHARD} END, "offset", uri'
_MEMORY = "1GB"
_BATCH_ROWS = 100_000


def plan_todo(
    items: Iterator[pa.RecordBatch],
    table: LabelTable | None,
    bundle_digests: Sequence[str],
    settings: Settings,
    *,
    models: Sequence[str],
    store: Store,
    run_id: str,
    retry: Sequence[str] = (),
    below: str | None = None,
    on_first: Callable[[], None] = lambda: None,
    large_chunks: Callable[[], bool] = lambda: True,
) -> Todo:
    """Subtract the table from what is listed (ITEM_SCHEMA, or without `offset`), and put the rest into chunks.

    Done is a picture with a final row for its uri and etag, a bundle digest and a digest of these settings, unless the
    row's status is one to `retry`, or the model has a later row that says `deleted`: a picture that came back is
    labelled again.
    `models` are the references (name@version) of the bundles. `below` is the prefix whose listing this is, when it
    names every picture there: then pictures of the table that it does not name are gone. Names twice are one picture.
    No table is one without rows. `on_first` is called as soon as a picture is found that lacks a row, `large_chunks`
    when there is enough to do for chunks of 2,048 pictures: over a GPU the bytes of a chunk lie in memory at once.
    """
    below = below and f"{below.rstrip('/')}/"
    wanted = Wanted(tuple(models), tuple(bundle_digests), settings.final, tuple(retry), below)
    folder = store.address(f"runs/{run_id}")
    with (
        TemporaryDirectory(prefix="labelmill-plan-") as name,
        full_disk_named(Path(name)),
        _Lack(Path(name), on_first) as lack,
    ):
        lack.subtract(items, table, wanted)
        lack.drop_repeated()
        num_rows, num_unknown = lack.count()
        return write_todo(
            folder,
            lack.rows(),
            lack.gone(),
            num_rows=num_rows,
            listed=lack.num_known + num_unknown,
            large_chunks=large_chunks,
        )


class _Lack:
    """The listed pictures that lack a row, in a DuckDB that spills into `folder`."""

    def __init__(self, folder: Path, on_first: Callable[[], None]) -> None:
        self._folder, self._on_first = folder, on_first
        self._connection = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(folder), "threads": 2})
        self._connection.execute(
            "CREATE TABLE todo (uri VARCHAR, size_bytes BIGINT, etag VARCHAR, modified_at TIMESTAMPTZ, "
            '"offset" BIGINT, lacking BIGINT, uri_hash UBIGINT, known BOOLEAN)'
        )
        self.num_known = 0
        self._not_listed: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def subtract(self, items: Iterator[pa.RecordBatch], table: LabelTable | None, wanted: Wanted) -> None:
        """Keep the listed pictures that lack a row, and note the hashes of what is not listed."""
        self._table = table
        self._keys = TableKeys(table, wanted, self._connection, self._folder)
        listing = hashed((_as_items(batch) for batch in items), self._connection.cursor(), self._keys.salt)
        for files, rows in in_groups(ahead(listing, 1), self._keys.groups(), self._folder):
            index = self._keys.index(files)
            for batch in rows:
                done, known = index.look_up(batch["uri_hash"].to_numpy(), batch["etag_hash"].to_numpy())
                self._look_up_before(index, batch, done, known & (done != wanted.everything))
                lacking = wanted.everything & ~done
                if (keep := lacking != 0).any():
                    self._on_first()
                    self._keep(batch.filter(pa.array(keep)), lacking[keep], known[keep])
            self.num_known += index.num_listed
            if wanted.below:
                self._not_listed.append(index.not_listed())
            del index  # before the next group's is built

    def _look_up_before(self, index: Index, rows: pa.Table, done: NDArray[np.int64], asked: NDArray[np.bool_]) -> None:
        """A file's row of which size and time of writing agree counts, though it was made before etags said more."""
        if not asked.any():
            return
        places = np.flatnonzero(asked)
        of_files, hashes = hashed_before(rows.select(["uri", "etag"]).take(places), self._connection, self._keys.salt)
        if len(of_files):
            done[places[of_files]] |= index.look_up(hashes["uri_hash"].to_numpy(), hashes["etag_hash"].to_numpy())[0]

    def _keep(self, rows: pa.Table, lacking: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> None:
        rows = rows.drop_columns(["etag_hash"]).append_column("lacking", pa.array(lacking))
        self._connection.register("rows", rows.append_column("known", pa.array(known)))
        self._connection.execute("INSERT INTO todo BY NAME SELECT * FROM rows")
        self._connection.unregister("rows")

    def drop_repeated(self) -> None:
        """Of a uri that is listed more than once keep the newest."""
        self._connection.execute(
            "CREATE TABLE repeated AS SELECT uri_hash FROM todo GROUP BY uri_hash HAVING count(*) > 1;"
            "DELETE FROM todo WHERE rowid IN (SELECT rowid FROM ("
            "SELECT rowid, row_number() OVER "
            '(PARTITION BY uri ORDER BY modified_at DESC, "offset" DESC, etag) AS place '
            "FROM todo WHERE uri_hash IN (SELECT uri_hash FROM repeated)) WHERE place > 1)"
        )

    def count(self) -> tuple[int, int]:
        """How many pictures lack a row, and how many of them the table knows nothing of."""
        counts: list[tuple[int, int]] = self._connection.execute(
            "SELECT count(*), count(*) FILTER (NOT known) FROM todo"
        ).fetchall()
        return counts[0]

    def rows(self) -> Iterator[pa.Table]:
        """Neighbours in a shard stand together, so that they are read together."""
        (members,) = self._connection.execute('SELECT count("offset") FROM todo').fetchall()[0]
        columns = ", ".join(f'"{name}"' for name in TODO_SCHEMA.names)
        rows = self._connection.sql(f"SELECT {columns} FROM todo ORDER BY {_NEIGHBOURS if members else 'uri'}")
        return _tables(rows.to_arrow_reader(_BATCH_ROWS), TODO_SCHEMA)

    def gone(self) -> Iterator[pa.Table]:
        """What is listed no more (GONE_SCHEMA). Asked for with the first one: DuckDB answers one query at a time."""
        if self._table is not None and any(len(hashes) for hashes in self._not_listed):
            yield from _tables(self._keys.gone(self._table, np.concatenate(self._not_listed)), GONE_SCHEMA)


def _tables(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]).cast(schema) for batch in batches)


def _as_items(batch: pa.RecordBatch) -> pa.RecordBatch:
    if "offset" not in batch.schema.names:
        batch = batch.append_column("offset", pa.nulls(batch.num_rows, pa.int64()))
    return batch.select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA)
