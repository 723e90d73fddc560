"""What is left to do: what the inventory lists, less what the table already holds for the run's models.

The table's rows are reduced to keys of 13 bytes, the listing streams by and is looked up (`difference.py`), and
only what lacks a row is kept: in DuckDB, which spills. The result lies in chunks below the table's `_labelmill` folder,
where every node can read its share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelmill.ahead import ahead
from labelmill.label.inventory.item import ITEM_SCHEMA
from labelmill.label.todo.difference import TableKeys, Wanted, in_groups
from labelmill.label.todo.hashing import hashed, hashed_before
from labelmill.label.todo.index import Found, Index
from labelmill.label.todo.room import full_disk_named
from labelmill.label.todo.settings import Settings
from labelmill.label.todo.todo import TODO_SCHEMA, UNREAD_SCHEMA, Todo, write_todo
from labelmill.label.todo.vanished import Vanished, outermost, too_many
from labelmill.storage import Store
from labelmill.table.row import DATA_SCHEMA
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
    unseen: Callable[[], Sequence[str]] = tuple,
    max_vanished_rate: float = 1.0,
    on_first: Callable[[], None] = lambda: None,
    large_chunks: Callable[[], bool] = lambda: True,
) -> Todo:
    """Subtract the table from what is listed (ITEM_SCHEMA, or without what a store may not know), and put the rest into
    chunks.

    Done is a picture with a final row for its uri and etag, a bundle digest and a digest of these settings, unless the
    row's status is one to `retry`; for one that lies in an archive, a row that says so is enough. If the model has a
    later row that says `deleted`, the picture has come back, and the last such row is to be written again.
    `models` are the references (name@version) of the bundles. `below` is the prefix whose listing this is, when it
    names every picture there: then pictures of the table that it does not name are gone, but for those at or below an
    address that was `unseen` when the listing was through. If these are more than
    `max_vanished_rate` of what the table holds, nothing is written, and `vanished` says where they were.
    Names twice are one picture: the newest counts, and without dates the one that is listed last.
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
        lack.spare(unseen())
        lack.drop_repeated()
        todo = lack.counted(folder, max_vanished_rate)
        if todo.vanished:
            return todo
        return write_todo(todo, lack.rows(), lack.unread(), lack.returned(), large_chunks=large_chunks)


class _Lack:
    """The listed pictures that lack a row, in a DuckDB that spills into `folder`."""

    def __init__(self, folder: Path, on_first: Callable[[], None]) -> None:
        self._folder, self._on_first = folder, on_first
        self._connection = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(folder), "threads": 2})
        self._connection.execute(
            "CREATE TABLE todo (uri VARCHAR, size_bytes BIGINT, etag VARCHAR, modified_at TIMESTAMPTZ, "
            '"offset" BIGINT, archive VARCHAR, lacking BIGINT, back BIGINT, place BIGINT, uri_hash UBIGINT, '
            "known BOOLEAN)"
        )
        self._num_known = self._num_expected = 0
        self._not_listed: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def subtract(self, items: Iterator[pa.RecordBatch], table: LabelTable | None, wanted: Wanted) -> None:
        """Keep the listed pictures that lack a row, and note the hashes of what is not listed."""
        self._table, self._wanted = table, wanted
        self._keys = TableKeys(table, wanted, self._connection, self._folder)
        listing = hashed((_as_items(batch) for batch in items), self._connection.cursor(), self._keys.salt)
        for files, rows in in_groups(ahead(_in_order(listing), 1), self._keys.groups(), self._folder):
            index = self._keys.index(files)
            for batch in rows:
                uris, archived = batch["uri_hash"].to_numpy(), pc.is_valid(batch["archive"]).to_numpy()
                found = index.look_up(uris, batch["etag_hash"].to_numpy(), archived)
                self._look_up_before(index, batch, found)
                if (is_open := index.note(uris, found)).any():
                    self._keep(batch, found, is_open)
            self._num_known += index.num_listed
            self._num_expected += index.num_expected
            if wanted.below:
                self._not_listed.append(index.not_listed())
            del index  # before the next group's is built

    def spare(self, unseen: Sequence[str]) -> None:
        """What is not listed and is at or below one of these addresses stays as it was: nothing is known of it."""
        hashes = np.concatenate(self._not_listed) if self._not_listed else np.zeros(0, np.uint64)
        if self._table is not None and len(hashes) and unseen:
            spared = self._keys.gone_below(self._table, hashes, unseen)
            self._not_listed = [np.setdiff1d(hashes, spared)]
            self._num_expected -= len(spared)

    def _look_up_before(self, index: Index, rows: pa.Table, found: Found) -> None:
        """A file's row of which size and time of writing agree counts, though it was made before etags said more."""
        places = np.flatnonzero(found.known & (found.lacking != 0))
        if not len(places):
            return
        of_files, hashes = hashed_before(rows.select(["uri", "etag"]).take(places), self._connection, self._keys.salt)
        if len(of_files):
            none, here = np.zeros(len(of_files), np.bool_), places[of_files]
            older = index.look_up(hashes["uri_hash"].to_numpy(), hashes["etag_hash"].to_numpy(), none)
            found.lacking[here] &= older.lacking
            found.back[here] &= found.lacking[here]

    def _keep(self, rows: pa.Table, found: Found, is_open: NDArray[np.bool_]) -> None:
        if (found.lacking != found.back).any():
            self._on_first()
        columns = {"lacking": found.lacking & ~found.back, "back": found.back, "known": found.known}
        for name, values in columns.items():
            rows = rows.append_column(name, pa.array(values))
        self._connection.register("rows", rows.drop_columns(["etag_hash"]).filter(pa.array(is_open)))
        self._connection.execute("INSERT INTO todo BY NAME SELECT * FROM rows")
        self._connection.unregister("rows")

    def drop_repeated(self) -> None:
        """Of a uri that is listed more than once keep the newest, which may lack nothing."""
        self._connection.execute(
            "CREATE TABLE repeated AS SELECT uri_hash FROM todo GROUP BY uri_hash HAVING count(*) > 1;"
            "DELETE FROM todo WHERE rowid IN (SELECT rowid FROM ("
            "SELECT rowid, "
            "row_number() OVER (PARTITION BY uri ORDER BY modified_at DESC NULLS LAST, place DESC) AS rank "
            "FROM todo WHERE uri_hash IN (SELECT uri_hash FROM repeated)) WHERE rank > 1);"
            "DELETE FROM todo WHERE lacking = 0 AND back = 0"
        )

    def counted(self, folder: str, max_vanished_rate: float) -> Todo:
        """The to-do list, of which nothing is written yet."""
        counts: list[tuple[int, ...]] = self._connection.execute(
            "SELECT count(*), count(*) FILTER (NOT known), count(*) FILTER (lacking <> 0 AND archive IS NULL), "
            "coalesce(sum(bit_count(lacking)) FILTER (archive IS NOT NULL), 0), count(*) FILTER (back <> 0) FROM todo"
        ).fetchall()
        ((num_open, num_unknown, num_rows, num_archived, num_returned),) = counts
        listed, vanished = self._num_known + num_unknown, self._vanished(max_vanished_rate)
        return Todo(
            folder,
            num_rows,
            chunk_rows=1,
            listed=listed,
            num_done=listed - num_open,
            num_gone=vanished.num_gone if vanished else 0,
            num_archived=int(num_archived),
            num_returned=num_returned,
            num_held=self._num_expected,
            num_vanished=sum(map(len, self._not_listed)),
            vanished=vanished,
        )

    def _vanished(self, limit: float) -> Vanished | None:
        num_gone = sum(map(len, self._not_listed))
        if self._table is None or not too_many(num_gone, self._num_expected, limit):
            return None
        leaves = self._keys.folders_of_gone(self._table, np.concatenate(self._not_listed))
        folders = outermost(pa.Table.from_batches(leaves))
        return Vanished(self._wanted.below or "", self._num_expected, num_gone, limit, folders)

    def rows(self) -> Iterator[pa.Table]:
        """Neighbours in a shard stand together, so that they are read together."""
        (members,) = self._connection.execute('SELECT count("offset") FROM todo').fetchall()[0]
        columns = ", ".join(f'"{name}"' for name in TODO_SCHEMA.names)
        rows = self._connection.sql(
            f"SELECT {columns} FROM todo WHERE lacking <> 0 AND archive IS NULL "
            f"ORDER BY {_NEIGHBOURS if members else 'uri'}"
        )
        return _tables(rows.to_arrow_reader(_BATCH_ROWS), TODO_SCHEMA)

    def unread(self) -> Iterator[pa.Table]:
        """What is listed no more, then what lies in an archive (UNREAD_SCHEMA). Each is asked for with its first one:
        DuckDB answers one query at a time."""
        if self._table is not None and any(len(hashes) for hashes in self._not_listed):
            gone = self._keys.gone(self._table, np.concatenate(self._not_listed))
            yield from _tables(gone, UNREAD_SCHEMA)
        columns = ", ".join(UNREAD_SCHEMA.names[:-1])
        archived = self._connection.sql(
            f"SELECT {columns}, number::INTEGER AS model "
            f"FROM todo, range({len(self._wanted.models)}) AS models(number) "
            "WHERE archive IS NOT NULL AND ((lacking >> number::INTEGER) & 1) = 1 ORDER BY model, uri"
        )
        yield from _tables(archived.to_arrow_reader(_BATCH_ROWS), UNREAD_SCHEMA)

    def returned(self) -> Iterator[pa.Table]:
        """The rows to be written again (DATA_SCHEMA)."""
        self._connection.execute("CREATE TABLE back AS SELECT uri, etag, back FROM todo WHERE back <> 0")
        (count,) = self._connection.execute("SELECT count(*) FROM back").fetchall()[0]
        if self._table is not None and count:
            yield from _tables(self._keys.returned(self._table), DATA_SCHEMA)


def _in_order(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """With the place of each row in the listing."""
    start = 0
    for table in tables:
        yield table.append_column("place", pa.array(np.arange(start, start + table.num_rows)))
        start += table.num_rows


def _tables(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]).cast(schema) for batch in batches)


def _as_items(batch: pa.RecordBatch) -> pa.RecordBatch:
    for name in ("offset", "archive"):
        if name not in batch.schema.names:
            batch = batch.append_column(name, pa.nulls(batch.num_rows, ITEM_SCHEMA.field(name).type))
    return batch.select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA)
