"""The difference between a listing and a label table: which pictures lack a row, and which rows lack a picture.

Strings are read once and never kept. Of a row of the table there remain 22 bytes on disk: 64 bits that hash its uri, 64
that hash uri and etag, the number of its run, its model, and whether it is final. They lie in 256 files by the first
byte of the uri's hash; sorted, 18 bytes a row are resident while the listing streams by and is looked up.

A table of more rows than fit into a quarter of the memory is taken in groups of those files, and the listing with them,
which then goes through the disk once. Nothing of one group looks at another, so for billions of pictures each group can
be a Ray task: see CONTRIBUTING.md, "Billions of pictures".
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from labelmill.address import beginnings
from labelmill.allowance import memory_bytes
from labelmill.label.todo.hashing import both_hashes, uri_hash
from labelmill.label.todo.index import ARCHIVED, DELETED, DONE, FILES, HERE, KEY, Index, by_file
from labelmill.label.todo.room import check_disk
from labelmill.table.row import DATA_SCHEMA, FINAL
from labelmill.table.table import LabelTable

__all__ = ["TableKeys", "Wanted", "in_groups"]

_BATCH_ROWS = 1_000_000
_RESIDENT_ROW_BYTES = 18
_LISTED_BYTES = 100  # of a listed picture on disk: its uri and etag, compressed, and its hashes
_WIDE_ROWS = 2048
_COLUMNS = ("uri", "etag", "status", "model", "bundle_digest", "settings_digest", "run_id")
_GONE_COLUMNS = (*_COLUMNS, "size_bytes", "modified_at")


@dataclass(frozen=True)
class Wanted:
    """What a run is to leave in the table: for each listed picture, a final row of each model."""

    models: tuple[str, ...]  # name@version; bit m of `lacking` is the m-th
    bundle_digests: tuple[str, ...]
    settings: tuple[str, ...]  # the settings digests that count
    retry: tuple[str, ...] = ()  # final statuses that do not count as done
    below: str | None = None  # a listing that names every picture below this prefix can tell that one is gone

    @property
    def names(self) -> list[str]:
        """The models' names, without versions: what the current view has one row for."""
        return list(dict.fromkeys(model.partition("@")[0] for model in self.models))

    @property
    def bundles(self) -> dict[str, int]:
        """The bits of `lacking` that a bundle's row clears: two references may name one bundle."""
        digests = self.bundle_digests
        return {digest: sum(1 << m for m, other in enumerate(digests) if other == digest) for digest in digests}

    @property
    def everything(self) -> int:
        """`lacking` of a picture that the table does not know."""
        return (1 << len(self.models)) - 1


def in_groups(
    rows: Iterator[pa.Table], groups: Sequence[range], folder: Path
) -> Iterator[tuple[range, Iterator[pa.Table]]]:
    """Each group of files with the hashed rows to be looked up in it; through the disk, when there are several."""
    if len(groups) == 1:
        yield groups[0], rows
        return
    ends = np.array([group.stop for group in groups], np.uint64)
    paths = [folder / f"listing-{group.start:03d}.parquet" for group in groups]
    with ExitStack() as stack:
        writers: dict[Path, pq.ParquetWriter] = {}
        for table in rows:
            group = np.searchsorted(ends, table["uri_hash"].to_numpy() >> np.uint64(56), side="right")
            for number, path in enumerate(paths):
                if path not in writers:
                    writers[path] = stack.enter_context(_writer(path, table.schema))
                writers[path].write_table(table.filter(pa.array(group == number)))
    for files, path in zip(groups, paths, strict=True):
        if path in writers:
            yield files, _read_back(path)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """No value stands there twice, and nobody asks for a range."""
    return pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False, write_statistics=False)


def _read_back(path: Path) -> Iterator[pa.Table]:
    """Not buffered ahead, which would take the whole file into memory."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(_BATCH_ROWS):
            yield pa.Table.from_batches([batch])
    path.unlink()


class TableKeys:
    """The keys of a table's rows that matter to a run, on local disk in `folder`."""

    def __init__(
        self, table: LabelTable | None, wanted: Wanted, connection: duckdb.DuckDBPyConnection, folder: Path
    ) -> None:
        self._wanted, self._connection, self._folder = wanted, connection, folder
        self.salt = secrets.token_hex(4)
        self.num_rows = 0
        check_disk(folder, (table.num_rows if table else 0) * KEY.itemsize)
        with ExitStack() as stack:
            files = [stack.enter_context(self._file(number).open("wb")) for number in range(FILES)]
            for batch in self._scan(table) if table else ():
                keys = np.empty(batch.num_rows, KEY)
                for name in KEY.names or ():
                    keys[name] = batch[name].to_numpy()
                self.num_rows += len(keys)
                order, pieces = by_file(keys["uri_hash"])
                keys = keys[order]
                for number, piece in pieces:
                    files[number].write(keys[piece].tobytes())

    def groups(self) -> list[range]:
        """The numbers of the files that are taken together: all, when they fit into memory."""
        resident_rows = memory_bytes() // 4 // _RESIDENT_ROW_BYTES
        count = min(FILES, -(-max(1, self.num_rows) // resident_rows))
        if count > 1:
            check_disk(self._folder, self.num_rows * _LISTED_BYTES)
        ends = [FILES * group // count for group in range(count + 1)]
        return [range(start, end) for start, end in itertools.pairwise(ends)]

    def index(self, files: range) -> Index:
        bits = np.array(list(self._wanted.bundles.values()), np.uint8 if len(self._wanted.models) <= 8 else np.int64)
        keys = ((number, np.fromfile(self._file(number), KEY)) for number in files)
        return Index(keys, bits, self._wanted.everything)

    def gone(self, table: LabelTable, uri_hashes: NDArray[np.uint64]) -> Iterator[pa.RecordBatch]:
        """The newest row of each picture and name of a model with one of these hashes, unless it says `deleted`.

        Columns of the row, and `model` as the number of the first model of that name. The table is read once more,
        which only a night with deleted pictures pays for.
        """
        return self._select(table, f"{self._gone(uri_hashes)} ORDER BY model, uri", _GONE_COLUMNS)

    def folders_of_gone(self, table: LabelTable, uri_hashes: NDArray[np.uint64]) -> Iterator[pa.RecordBatch]:
        """In which folders these were, and how many pictures in each."""
        folder = "regexp_replace(uri, '[^/]*$', '')"
        counts = (
            f"SELECT {folder} AS folder, count(DISTINCT uri) AS pictures FROM ({self._gone(uri_hashes)}) GROUP BY 1"
        )
        return self._select(table, counts, _GONE_COLUMNS)

    def gone_below(
        self, table: LabelTable, uri_hashes: NDArray[np.uint64], addresses: Sequence[str]
    ) -> NDArray[np.uint64]:
        """The hashes of those that are at one of these addresses, or below it; below an address there is no other."""
        starts = sorted({start for address in addresses for start in beginnings(address)})
        self._connection.register("starts", pa.table({"start": pa.array(starts, pa.string())}))
        below = (
            f"SELECT DISTINCT {uri_hash(self.salt)} AS uri_hash FROM ({self._gone(uri_hashes)}) AS gone_rows "
            "ASOF JOIN starts ON uri || '/' >= start WHERE starts_with(uri || '/', start)"
        )
        found = [batch["uri_hash"].to_numpy() for batch in self._select(table, below, _GONE_COLUMNS)]
        return np.concatenate(found) if found else np.zeros(0, np.uint64)

    def _gone(self, uri_hashes: NDArray[np.uint64]) -> str:
        self._connection.register("gone", pa.table({"uri_hash": uri_hashes}))
        here = uri_hash(self.salt)
        names = [model.partition("@")[0] for model in self._wanted.models]
        number = _case("split_part(model, '@', 1)", {name: names.index(name) for name in self._wanted.names})
        rows = f"SELECT *, {number} AS number FROM labels WHERE {here} IN (SELECT uri_hash FROM gone)"
        newest = "QUALIFY row_number() OVER (PARTITION BY uri, number ORDER BY run_id DESC) = 1"
        return (
            f"SELECT uri, size_bytes, etag, modified_at, NULL::VARCHAR AS archive, number::INTEGER AS model "
            f"FROM (SELECT * FROM ({rows}) WHERE number IS NOT NULL AND {self._is_below()} {newest}) "
            "WHERE status <> 'deleted'"
        )

    def returned(self, table: LabelTable) -> Iterator[pa.RecordBatch]:
        """The last final row (DATA_SCHEMA) of each uri, etag and model, as bits, in the relation `back`.

        The table is read twice more, which only a night on which pictures come back pays for: first for which rows
        these are, then for the rows, which may be wide.
        """
        bits = _case("bundle_digest", self._wanted.bundles)
        last = (
            "SELECT uri, etag, model, bundle_digest, max(run_id) AS run_id FROM labels JOIN back USING (uri, etag) "
            f"WHERE ({bits} & back) <> 0 AND {self._is_final()} GROUP BY ALL"
        )
        beside = self._connection.cursor()  # a connection answers one query at a time
        beside.execute("CREATE TABLE last (uri TEXT, etag TEXT, model TEXT, bundle_digest TEXT, run_id TEXT)")
        for batch in self._select(table, last, _COLUMNS):
            beside.register("batch", batch)
            beside.execute("INSERT INTO last SELECT * FROM batch")
        columns = ", ".join(f"labels.{name}" for name in DATA_SCHEMA.names)
        rows = f"SELECT {columns} FROM labels JOIN last USING (uri, etag, model, bundle_digest, run_id)"
        return self._select(table, rows, DATA_SCHEMA.names, _WIDE_ROWS)

    def _scan(self, table: LabelTable) -> Iterator[pa.RecordBatch]:
        bundle = _case("bundle_digest", {digest: place for place, digest in enumerate(self._wanted.bundles)})
        # Without a NOT: DuckDB 2.0.0's planner fails over one around a comparison that a file's statistics decide.
        tells = (
            f"CASE WHEN status = 'deleted' THEN {DELETED} WHEN bundle IS NOT NULL AND {self._is_final()} THEN {DONE} "
            f"WHEN bundle IS NOT NULL AND {self._is_final('archived')} THEN {ARCHIVED} ELSE 0 END"
        )
        here = self._is_below() if self._wanted.below else "false"
        rows = f"SELECT *, {self._name()} AS name, {bundle} AS bundle FROM labels"
        rows = f"SELECT *, {tells} AS tells, CASE WHEN {here} THEN {HERE} ELSE 0 END AS here FROM ({rows})"
        keys = (
            f"SELECT {both_hashes(self.salt)}, coalesce(try_cast(split_part(run_id, '-', 1) AS UINTEGER), 0) AS run, "
            f"name::UTINYINT AS name, coalesce(bundle, 0)::UTINYINT AS bundle, (tells + here)::UTINYINT AS state "
            f"FROM ({rows}) WHERE name IS NOT NULL AND tells + here > 0"
        )
        return self._select(table, keys, _COLUMNS)

    def _select(
        self, table: LabelTable, sql: str, columns: Sequence[str], batch_rows: int = _BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a SELECT over `labels`, which has these columns."""
        return table.select(self._connection, sql, columns, self._wanted.names, batch_rows=batch_rows)

    def _is_final(self, *statuses: str) -> str:
        """Of these settings, and with one of the `statuses`: those that are final for this run, where none is named."""
        final = [status for status in FINAL if status not in (*self._wanted.retry, "deleted")]
        return f"settings_digest IN {_listed(self._wanted.settings)} AND status IN {_listed(statuses or final)}"

    def _name(self) -> str:
        return _case("split_part(model, '@', 1)", {name: place for place, name in enumerate(self._wanted.names)})

    def _is_below(self) -> str:
        if not self._wanted.below:
            return "true"
        return f"({' OR '.join(f'starts_with(uri, {_quoted(start)})' for start in beginnings(self._wanted.below))})"

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:03d}.keys"


def _case(column: str, values: dict[Any, Any]) -> str:
    whens = " ".join(f"WHEN {_quoted(key)} THEN {_quoted(value)}" for key, value in values.items())
    return f"CASE {column} {whens} END"


def _listed(values: Sequence[str]) -> str:
    return f"({', '.join(map(_quoted, values))})"


def _quoted(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
