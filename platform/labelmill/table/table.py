"""A label table to read: a Delta Lake table of plain Parquet files."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from labelmill.errors import DataError, SpecError, TableError
from labelmill.parquet import read_parquet
from labelmill.storage import Store, delta_options, open_store, split_uri
from labelmill.table.row import PARTITION, SCHEMA
from labelmill.table.view import NEEDED, current_view, name_is

__all__ = ["LABELLED_BY", "LabelTable", "one_line"]

LABELLED_BY = "labelmill.version."
"""Begins the property of a Delta table that tells to which version the last run resolved the model of a name."""

_BATCH_ROWS = 100_000

# Not by DuckDB's own partitioning, which would also take a `model=...` further up in the path for a column.
_COMPUTED = {PARTITION: f"regexp_extract(filename, '{PARTITION}=([0-9-]+)/[^/]*$', 1)::DATE AS {PARTITION}"}


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
            raise TableError(f"the label table at {self.uri} does not open: {one_line(exc)}") from exc
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

    def current(
        self, model: str | None = None, columns: Sequence[str] | None = None, *, memory_limit: str = "2GB"
    ) -> pa.RecordBatchReader:
        """Stream the `columns` (default all of SCHEMA) of the current view, in no order: a row a picture and model.

        It is that of the version to which the last run resolved the model, or of `model`: "digits@3", or "digits" for
        the rows of this model alone. Where that version has no row of the picture as it was last seen, it is the
        newest of the model. DuckDB spills what does not fit. SpecError: `model` is no name and number.
        """
        view = self._view(model, ", ".join(columns or SCHEMA.names))
        schema = pa.schema([SCHEMA.field(name) for name in columns or SCHEMA.names])
        return pa.RecordBatchReader.from_batches(schema, self._streamed(view, schema, memory_limit))

    def _streamed(self, view: str, schema: pa.Schema, memory_limit: str) -> Iterator[pa.RecordBatch]:
        with TemporaryDirectory(prefix="labelmill-view-") as folder:
            config = {"memory_limit": memory_limit, "temp_directory": folder, "preserve_insertion_order": False}
            with duckdb.connect(config=config) as connection:
                self.attach(connection, "labels", list(dict.fromkeys([*schema.names, *NEEDED])))
                for batch in connection.sql(view).to_arrow_reader(_BATCH_ROWS):
                    yield pa.Table.from_batches([batch]).cast(schema).combine_chunks().to_batches()[0]

    def _view(self, model: str | None, columns: str) -> str:
        if model is None:
            return current_view(self.versions, columns)
        name, at, version = model.partition("@")
        if not name or (at and not version.isdecimal()):
            raise SpecError(
                f"expected the name of a model, or with the number of a version, as in digits@3; got {model!r}. "
                "A table knows no aliases: `labelmill models show NAME` tells to which version one points."
            )
        if at and not self._files({"model": model}):
            raise TableError(f"no row of {model} in {self.uri}: `labelmill labels {self.uri}` shows what there is.")
        versions = self.versions | ({name: int(version)} if at else {})
        return current_view(versions, columns, f"(SELECT * FROM labels WHERE {name_is(name)})")

    def query(
        self, sql: str, columns: Sequence[str] | None = None, *, model: str | None = None
    ) -> list[dict[str, Any]]:
        """The rows of a SELECT in DuckDB's SQL over `labels`, or over `current_labels`, the current view of `model`.

        Both have these columns (default all), and those that the view needs.
        """
        names = list(dict.fromkeys([*columns, *NEEDED])) if columns else SCHEMA.names
        labels = pa.RecordBatchReader.from_batches(
            pa.schema([SCHEMA.field(name) for name in names]), self.batches(names)
        )
        with duckdb.connect() as connection:
            connection.register("labels", labels)
            connection.execute(f"CREATE VIEW current_labels AS {self._view(model, ', '.join(names))}")
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
    def versions(self) -> dict[str, int]:
        """The version of each model, by name, to which the last run that used the model resolved it."""
        properties = self._delta.metadata().configuration.items()
        found = {key.removeprefix(LABELLED_BY): value for key, value in properties if key.startswith(LABELLED_BY)}
        return {name: int(version) for name, version in found.items() if version.isdecimal()}

    @property
    def num_rows(self) -> int:
        """As the log counts them."""
        return sum(action["num_records"] or 0 for _, _, action in self._actions())

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
    try:
        return read_parquet(store.read(path), columns)
    except DataError as exc:
        raise TableError(
            f"{store.address(path)} is damaged: {exc}. Restore it, or the table's version before it."
        ) from exc


def _as_batches(rows: Future[pa.Table], day: date, schema: pa.Schema) -> list[pa.RecordBatch]:
    table = rows.result()
    if PARTITION in schema.names:
        table = table.append_column(PARTITION, pa.repeat(pa.scalar(day, pa.date32()), table.num_rows))
    batches: list[pa.RecordBatch] = table.select(schema.names).cast(schema).to_batches()
    return batches


def one_line(exc: BaseException) -> str:
    """deltalake puts the cause, a full disk say, on a line of its own, behind an arrow in red."""
    lines = [line.strip(" ↳") for line in re.sub(r"\x1b\[[0-9;]*m", "", str(exc)).splitlines()]
    return ": ".join(line for line in lines if line)[:500] or type(exc).__name__
