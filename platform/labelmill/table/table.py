"""A label table to read: a Delta Lake table of plain Parquet files."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa

from labelmill.errors import LabelmillError, SpecError, TableError, first_line
from labelmill.storage import open_store, split_uri
from labelmill.table.row import PARTITION, SCHEMA
from labelmill.table.snapshot import LiveFile, Snapshot
from labelmill.table.view import NEEDED, current_view, name_is, view_text

__all__ = ["LABELLED_BY", "LabelTable"]

LABELLED_BY = "labelmill.version."
"""Begins the property of a Delta table that tells to which version the last run resolved the model of a name."""

_BATCH_ROWS = 100_000

# Not by DuckDB's own partitioning, which would also take a `model=...` further up in the path for a column.
_COMPUTED = {PARTITION: f"regexp_extract(filename, '{PARTITION}=([0-9-]+)/[^/]*$', 1)::DATE AS {PARTITION}"}


class LabelTable:
    """A label table to read, as it is now. TableError: there is none at `uri`, or it cannot be read."""

    def __init__(self, uri: str) -> None:
        self._snapshot = Snapshot(uri)
        self.uri = self._snapshot.uri

    @classmethod
    def if_there(cls, uri: str) -> LabelTable | None:
        """The table at `uri`, or None where nothing has made one yet."""
        return cls(uri) if any(open_store(uri).keys("_delta_log")) else None

    def batches(self, columns: Sequence[str] | None = None, **equal: str) -> Iterator[pa.RecordBatch]:
        """Stream the rows' `columns` (default all), from the files whose statistics admit `column="value"` of `equal`.

        The files are read through our own door to the store, one ahead: deltalake's own reader holds the interpreter
        while it waits for the network, and with it the heartbeat of a lease.
        """
        yield from self._stream(self._files(equal), columns or SCHEMA.names)

    def select(
        self,
        connection: duckdb.DuckDBPyConnection,
        sql: str,
        columns: Sequence[str],
        models: Sequence[str] = (),
        *,
        batch_rows: int = _BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows of a SELECT in DuckDB's SQL over `labels`, which has these columns.

        The files that hold none of `models` (names, no versions) are left out. Times are in UTC.
        """
        connection.execute("SET TimeZone = 'UTC'")
        streaming: list[LabelmillError] = []
        try:
            self._attach(connection, columns, models, streaming)
            yield from connection.sql(sql).to_arrow_reader(batch_rows)
        except duckdb.Error as exc:
            if streaming:
                raise streaming[0] from exc
            raise TableError(
                f"the label table at {self.uri} cannot be read: {first_line(exc)}. Restore what is damaged, or "
                "the table's version before it (Delta's RESTORE)."
            ) from exc

    def _attach(
        self,
        connection: duckdb.DuckDBPyConnection,
        columns: Sequence[str],
        models: Sequence[str],
        errors: list[LabelmillError],
    ) -> None:
        """The files of a folder are read by DuckDB itself, in parallel and as far as a query needs them. It takes the
        characters of a pattern for one and knows nothing of deleted rows; then, as for a store, the rows are streamed,
        and what ends the stream, for which DuckDB has an error of its own, is noted in `errors`.
        """
        files = [file for file in self._snapshot.files if file.may_be_of(models)]
        if files and self._is_plain_folder(files, columns):
            self._snapshot.check_there(files)  # what DuckDB says of a file that is gone or cut off names no mend
            paths = [self._snapshot.store.address(file.path) for file in files]
            read = connection.read_parquet(paths, hive_partitioning=False, filename=PARTITION in columns)
            names = ", ".join(_COMPUTED.get(column, column) for column in columns)
            read.project(names).create_view("labels", replace=True)
            return
        schema = pa.schema([SCHEMA.field(column) for column in columns])
        rows = _noting(errors, self._stream(files, columns))
        connection.register("labels", pa.RecordBatchReader.from_batches(schema, rows))

    def _is_plain_folder(self, files: Sequence[LiveFile], columns: Sequence[str]) -> bool:
        days_in_names = PARTITION not in columns or all(
            file.path.startswith(f"{PARTITION}={file.day}/") for file in files
        )
        in_folder = split_uri(self.uri)[0] == "/" and not set("*?[") & set(self.uri)
        return in_folder and days_in_names and not self._snapshot.kept

    def _stream(self, files: Sequence[LiveFile], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with ThreadPoolExecutor(1, "table") as ahead:
            coming: deque[Future[pa.Table]] = deque()
            for file in files:
                coming.append(ahead.submit(self._snapshot.rows, file, columns))
                if len(coming) > 1:
                    yield from coming.popleft().result().to_batches()
            while coming:
                yield from coming.popleft().result().to_batches()

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
                for batch in self.select(connection, view, list(dict.fromkeys([*schema.names, *NEEDED]))):
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
        sql = f"WITH current_labels AS ({self._view(model, ', '.join(names))}) {sql}"
        with duckdb.connect() as connection:
            return [row for batch in self.select(connection, sql, names) for row in batch.to_pylist()]

    def _files(self, equal: dict[str, str]) -> list[LiveFile]:
        files = self._snapshot.files
        return [file for file in files if all(file.may_hold(name, value) for name, value in equal.items())]

    def days(self) -> list[date]:
        """The days on which the table's rows were labelled: its partitions."""
        return sorted({file.day for file in self._snapshot.files if file.day is not None})

    def unreferenced(self, older_than_h: float) -> set[str]:
        """Keys of the data files that no version younger than that consists of. Deletes nothing."""
        paths = self._snapshot.delta.vacuum(
            retention_hours=math.ceil(older_than_h), dry_run=True, enforce_retention_duration=False, full=True
        )
        return {unquote(path) for path in paths}

    def view_text(self, uri: str, dialect: str) -> str:
        """What a user pastes into DuckDB, Spark or Trino to have the current view, with the table as `uri`."""
        vectors = self._snapshot.has_deletion_vectors
        return view_text(uri, dialect, self.versions, table_version=self.version, has_deletion_vectors=vectors)

    @property
    def version(self) -> int:
        return int(self._snapshot.delta.version())

    @property
    def versions(self) -> dict[str, int]:
        """The version of each model, by name, to which the last run that used the model resolved it."""
        properties = self._snapshot.delta.metadata().configuration.items()
        found = {key.removeprefix(LABELLED_BY): value for key, value in properties if key.startswith(LABELLED_BY)}
        return {name: int(version) for name, version in found.items() if version.isdecimal()}

    @property
    def num_rows(self) -> int:
        """As the log counts them."""
        return sum(file.num_rows for file in self._snapshot.files)

    @property
    def num_files(self) -> int:
        return len(self._snapshot.files)


def _noting(errors: list[LabelmillError], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except LabelmillError as exc:
        errors.append(exc)
        raise
