"""The label table: a Delta Lake table of plain Parquet files, appended to by one run at a time.

Workers put data files under names of their own and hand back what a commit needs to know of them (`DataFile`). Only
the driver commits, and only what a worker returned: a committed file is never rewritten, and a file that nobody
committed is invisible. The fence is Delta's application transaction: every commit of ours carries the next number of
one application id, so of two writers on the same snapshot one wins, and the other learns that it was replaced.
"""

from __future__ import annotations

import io
import json
import logging
import math
import re
import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from labelmill.errors import FencedError, TableError
from labelmill.storage import Store, delta_options, open_store, split_uri
from labelmill.table.row import DATA_SCHEMA, PARTITION, SCHEMA

__all__ = ["DataFile", "LabelTable", "TableWriter", "existing_data_file", "put_data_file"]

logger = logging.getLogger(__name__)

_APPLICATION = "labelmill"
_DELTA_SCHEMA = Schema.from_arrow(SCHEMA)
_STATISTICS = ("uri", "status", "model", "bundle_digest", "settings_digest", "run_id")
# Not by DuckDB's own partitioning, which would also take a `model=...` further up in the path for a column.
_COMPUTED = {PARTITION: f"regexp_extract(filename, '{PARTITION}=([0-9-]+)/[^/]*$', 1)::DATE AS {PARTITION}"}
_COMPACT_FROM_FILES = 16
_TARGET_FILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class DataFile:
    """A data file that lies in the table's folder and waits to be committed."""

    path: str  # below the table's folder
    size_bytes: int
    labelled_on: str
    statistics: str  # JSON as Delta's protocol defines it: https://github.com/delta-io/delta/blob/master/PROTOCOL.md

    def action(self) -> AddAction:
        now_ms = int(time.time() * 1000)
        return AddAction(self.path, self.size_bytes, {PARTITION: self.labelled_on}, now_ms, True, self.statistics)


def put_data_file(store: Store, path: str, rows: pa.Table, labelled_on: str) -> DataFile:
    """Write `rows` (DATA_SCHEMA) at `path`, unless a file lies there: then describe that one instead."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    data = buffer.getvalue()
    if not store.write_if_absent(path, data):
        return existing_data_file(store, path, labelled_on)[0]
    return _describe(path, rows, len(data), labelled_on)


def existing_data_file(store: Store, path: str, labelled_on: str) -> tuple[DataFile, pa.Table]:
    """The data file that an earlier attempt left at `path`, and its rows. NotFoundError: there is none."""
    data = store.read(path)
    rows = pq.read_table(io.BytesIO(data), schema=DATA_SCHEMA)
    return _describe(path, rows, len(data), labelled_on), rows


def _describe(path: str, rows: pa.Table, size_bytes: int, labelled_on: str) -> DataFile:
    ends = {name: pc.min_max(rows[name]).as_py() for name in _STATISTICS}
    statistics = {
        "numRecords": rows.num_rows,
        "minValues": {name: end["min"] for name, end in ends.items()},
        "maxValues": {name: end["max"] for name, end in ends.items()},
        "nullCount": {name: rows[name].null_count for name in _STATISTICS},
    }
    return DataFile(path, size_bytes, labelled_on, json.dumps(statistics))


class LabelTable:
    """A label table to read. TableError: there is none at `uri`, or it cannot be opened."""

    def __init__(self, uri: str) -> None:
        self._store = open_store(uri)
        self.uri = self._store.uri
        try:
            self._delta = DeltaTable(self.uri, storage_options=delta_options(self.uri))
        except TableNotFoundError as exc:
            raise TableError(
                f"there is no label table at {self.uri}. Run a label job with `output: {self.uri}` to make it."
            ) from exc
        except (DeltaError, OSError) as exc:
            raise TableError(f"the label table at {self.uri} does not open: {_one_line(exc)}") from exc
        missing = [name for name in SCHEMA.names if name not in {field.name for field in self._delta.schema().fields}]
        if missing:
            raise TableError(f"{self.uri} is a Delta table, but not a label table: it lacks {', '.join(missing)}.")

    @classmethod
    def if_there(cls, uri: str) -> LabelTable | None:
        """The table at `uri`, or None where nothing has made one yet."""
        return cls(uri) if any(open_store(uri).keys("_delta_log")) else None

    def batches(self, columns: Sequence[str] | None = None, **equal: str) -> Iterator[pa.RecordBatch]:
        """Stream the rows' `columns` (default all), from the files whose statistics admit `column="value"` of `equal`.

        The files are read through our own door to the store, one ahead: deltalake's own reader holds the interpreter
        while it waits for the network, and with it the heartbeat of a lease.
        """
        schema = pa.schema([SCHEMA.field(name) for name in columns or SCHEMA.names])
        yield from self._stream(self._files(equal), schema)

    def attach(
        self, connection: duckdb.DuckDBPyConnection, name: str, columns: Sequence[str], models: Sequence[str] = ()
    ) -> None:
        """Make the rows' `columns` a relation of DuckDB, without the files that hold none of these models (no version).

        The files of a folder are read by DuckDB itself, in parallel and as far as a query needs them; it takes the
        characters of a pattern for one, and then, as for a store, the rows come through `batches`.
        """
        files = [(path, day) for path, day, action in self._actions() if _may_be_of(action, models)]
        if files and split_uri(self.uri)[0] == "/" and not set("*?[") & set(self.uri):
            paths = [self._store.address(path) for path, _ in files]
            rows = connection.read_parquet(paths, hive_partitioning=False, filename=PARTITION in columns)
            rows.project(", ".join(_COMPUTED.get(column, column) for column in columns)).create_view(name, replace=True)
            return
        schema = pa.schema([SCHEMA.field(column) for column in columns])
        connection.register(name, pa.RecordBatchReader.from_batches(schema, self._stream(files, schema)))

    def _stream(self, files: Sequence[tuple[str, date]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        stored = [name for name in schema.names if name != PARTITION]
        with ThreadPoolExecutor(1, "table") as ahead:
            coming: deque[tuple[Future[pa.Table], date]] = deque()
            for path, day in files:
                coming.append((ahead.submit(_read_rows, self._store, path, stored), day))
                if len(coming) > 1:
                    yield from _as_batches(*coming.popleft(), schema)
            while coming:
                yield from _as_batches(*coming.popleft(), schema)

    def query(self, sql: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of a SELECT in DuckDB's SQL over `labels`, which has these columns (default all)."""
        names = list(columns) if columns else SCHEMA.names
        labels = pa.RecordBatchReader.from_batches(
            pa.schema([SCHEMA.field(name) for name in names]), self.batches(columns)
        )
        with duckdb.connect() as connection:
            connection.register("labels", labels)
            rows: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
        return rows

    def _files(self, equal: dict[str, str]) -> list[tuple[str, date]]:
        return [
            (path, day)
            for path, day, action in self._actions()
            if all(_may_hold(action, name, value) for name, value in equal.items())
        ]

    def _actions(self) -> list[tuple[str, date, dict[str, Any]]]:
        actions = pa.table(self._delta.get_add_actions(flatten=True)).to_pylist()
        return [(unquote(action["path"]), action[f"partition.{PARTITION}"], action) for action in actions]

    def days(self) -> list[date]:
        """The days on which the table's rows were labelled: its partitions."""
        return sorted({day for _, day, _ in self._actions()})

    def unreferenced(self, older_than_h: float) -> set[str]:
        """Keys of the data files that no version younger than that consists of. Deletes nothing."""
        paths = self._delta.vacuum(
            retention_hours=math.ceil(older_than_h), dry_run=True, enforce_retention_duration=False, full=True
        )
        return {unquote(path) for path in paths}

    @property
    def version(self) -> int:
        return int(self._delta.version())

    @property
    def num_files(self) -> int:
        return len(self._delta.file_uris())


def _may_hold(action: dict[str, Any], name: str, value: str) -> bool:
    low, high = action.get(f"min.{name}"), action.get(f"max.{name}")
    return low is None or high is None or low <= value <= high


def _may_be_of(action: dict[str, Any], models: Sequence[str]) -> bool:
    low, high = action.get("min.model"), action.get("max.model")
    return not models or low is None or high is None or any(low < f"{m}A" and f"{m}@" <= high for m in models)


def _read_rows(store: Store, path: str, columns: list[str]) -> pa.Table:
    return pq.read_table(io.BytesIO(store.read(path)), columns=columns)


def _as_batches(rows: Future[pa.Table], day: date, schema: pa.Schema) -> list[pa.RecordBatch]:
    table = rows.result()
    if PARTITION in schema.names:
        table = table.append_column(PARTITION, pa.repeat(pa.scalar(day, pa.date32()), table.num_rows))
    batches: list[pa.RecordBatch] = table.select(schema.names).cast(schema).to_batches()
    return batches


class TableWriter:
    """The one writer of a label table, fenced. `number` counts the writers and their commits, across all runs."""

    def __init__(self, uri: str) -> None:
        self.uri = open_store(uri).uri
        try:
            self._delta = self._open_or_create()
            self.number = self._delta.transaction_version(_APPLICATION) or 0
            self.run_id = f"{self.number + 1:09d}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
            self._commit([])  # from here on, whoever opened the table before us can no longer commit
        except (DeltaError, OSError) as exc:
            raise TableError(f"the label table at {self.uri} cannot be written: {_one_line(exc)}") from exc

    def _open_or_create(self) -> DeltaTable:
        options = delta_options(self.uri)
        if not DeltaTable.is_deltatable(self.uri, storage_options=options):
            DeltaTable.create(
                self.uri,
                schema=_DELTA_SCHEMA,
                mode="ignore",
                partition_by=[PARTITION],
                storage_options=options,
                name="labels",
                configuration={"delta.dataSkippingStatsColumns": ",".join(_STATISTICS)},
            )
        LabelTable(self.uri)  # says so when it is some other Delta table
        return DeltaTable(self.uri, storage_options=options)

    def commit(self, files: Sequence[DataFile]) -> None:
        """Make `files` part of the table, all or none. FencedError: another run took the table over."""
        try:
            self._commit([file.action() for file in files])
        except (DeltaError, OSError) as exc:
            raise TableError(
                f"{len(files)} finished files could not be committed to {self.uri}: {_one_line(exc)}. "
                "What was committed before stays. Mend the cause and run the same command again."
            ) from exc

    def _commit(self, actions: list[AddAction | RemoveAction]) -> None:
        if (self._delta.transaction_version(_APPLICATION) or 0) != self.number:
            raise self._fenced()
        try:
            self._delta.create_write_transaction(
                actions, "append", schema=_DELTA_SCHEMA, partition_by=[PARTITION], commit_properties=self._properties()
            )
        except (DeltaError, OSError) as exc:
            if not self._landed(exc):
                raise
        self._advance()

    def _landed(self, exc: Exception) -> bool:
        """After a failure whose outcome is unknown: did our commit get in? FencedError: somebody else's did."""
        self._delta.update_incremental()
        number = self._delta.transaction_version(_APPLICATION) or 0
        if number == self.number:
            return False
        newest = next((entry for entry in self._delta.history(20) if "labelmill_number" in entry), {})
        if newest.get("labelmill_number") == str(self.number + 1) and newest.get("run_id") == self.run_id:
            return True
        raise self._fenced() from exc

    def _advance(self) -> None:
        self._delta.update_incremental()
        self.number += 1
        if self._delta.transaction_version(_APPLICATION) != self.number:
            raise self._fenced()

    def _properties(self) -> CommitProperties:
        number = self.number + 1
        return CommitProperties(
            app_transactions=[Transaction(_APPLICATION, number)],
            custom_metadata={"run_id": self.run_id, "labelmill_number": str(number)},
        )

    def _fenced(self) -> FencedError:
        return FencedError(
            f"another run took over the label table at {self.uri}. What this run ({self.run_id}) committed stays; "
            "nothing more of it will be. Run the same command again when the other has ended."
        )

    def compact(self, day: date, *, from_files: int = _COMPACT_FROM_FILES) -> int:
        """Merge the small files of one day's partition, if it has `from_files`; returns how many fewer there are.

        A merge carries no number of ours, since Delta's optimize takes none; it needs none, as it changes no row.
        """
        self._delta.update_incremental()
        if self._delta.transaction_version(_APPLICATION) != self.number:
            raise self._fenced()
        here = f"{PARTITION}={day.isoformat()}/"
        if sum(here in uri for uri in self._delta.file_uris()) < from_files:
            return 0
        try:
            done: dict[str, Any] = self._delta.optimize.compact(
                partition_filters=[(PARTITION, "=", day.isoformat())],
                target_size=_TARGET_FILE_BYTES,
                commit_properties=CommitProperties(custom_metadata={"run_id": self.run_id}),
            )
        except (DeltaError, OSError) as exc:
            # Every row is committed already; small files cost readers time, not truth.
            logger.warning("the small files of %s were not merged: %s", day, _one_line(exc))
            done = {}
        self._delta.update_incremental()
        return int(done.get("numFilesRemoved", 0)) - int(done.get("numFilesAdded", 0))


def _one_line(exc: BaseException) -> str:
    """deltalake puts the cause, a full disk say, on a line of its own, behind an arrow in red."""
    lines = [line.strip(" ↳") for line in re.sub(r"\x1b\[[0-9;]*m", "", str(exc)).splitlines()]
    return ": ".join(line for line in lines if line)[:500] or type(exc).__name__
