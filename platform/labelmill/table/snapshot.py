"""What Delta says is in a label table: the data files of its newest version, without the rows that were deleted there.

Another tool may delete rows without touching their file, by a deletion vector beside it, give the table another shape,
or delete files. What we cannot read as it is meant is refused in a line that names the mend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, Field, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from labelmill.errors import DataError, NotFoundError, TableError, first_line
from labelmill.parquet import read_parquet
from labelmill.storage import Store, delta_options, open_store
from labelmill.table.data_file import lost_files
from labelmill.table.row import PARTITION, SCHEMA

__all__ = ["LiveFile", "Snapshot", "one_line"]

_MAPPING = "delta.columnMapping.mode"
_MEND = " Another tool set that: drop it there (in Spark, ALTER TABLE … DROP FEATURE …), or copy the table without it."


@dataclass(frozen=True)
class LiveFile:
    """A data file of the table. `statistics` has `min.<column>` and `max.<column>`, as far as they are known."""

    path: str  # below the table's folder
    size_bytes: int
    day: date | None
    num_rows: int  # with those that are deleted in it
    statistics: Mapping[str, Any]

    def may_hold(self, column: str, value: str) -> bool:
        low, high = self._ends(column)
        return low is None or high is None or low <= value <= high

    def may_be_of(self, models: Sequence[str]) -> bool:
        """Whether it may have rows of models of these names; of none is any."""
        low, high = self._ends("model")
        return not models or low is None or high is None or any(low < f"{m}A" and f"{m}@" <= high for m in models)

    def _ends(self, column: str) -> tuple[Any, Any]:
        return self.statistics.get(f"min.{column}"), self.statistics.get(f"max.{column}")


class Snapshot:
    """The table at `uri` as it is now. TableError: there is none, or it is none that can be read as it is meant."""

    def __init__(self, uri: str) -> None:
        self.store: Store = open_store(uri)
        self.uri = self.store.uri
        try:
            self.delta = DeltaTable(self.uri, storage_options=delta_options(self.uri))
            self._check()
        except TableNotFoundError as exc:
            raise TableError(
                f"there is no label table at {self.uri}. Run a label job with `output: {self.uri}` to make it."
            ) from exc
        except (DeltaError, OSError) as exc:
            raise TableError(f"the label table at {self.uri} does not open: {one_line(exc)}") from exc

    def _check(self) -> None:
        kinds = {field.name: _kind(field) for field in self.delta.schema().fields}
        if missing := [name for name in SCHEMA.names if name not in kinds]:
            raise TableError(f"{self.uri} is a Delta table, but not a label table: it lacks {', '.join(missing)}.")
        metadata = self.delta.metadata()
        if metadata.configuration.get(_MAPPING, "none") != "none":
            raise self._foreign(f"its columns have other names in its files ({_MAPPING})")
        ours = {field.name: _kind(field) for field in Schema.from_arrow(SCHEMA).fields}
        if changed := [name for name, kind in ours.items() if kinds[name] != kind]:
            raise self._foreign(f"the type of {', '.join(changed)} is not what it was")
        if metadata.partition_columns != [PARTITION]:
            raise self._foreign(f"it is divided by {metadata.partition_columns or 'no column'}, not by {PARTITION}")

    def _foreign(self, what: str) -> TableError:
        return TableError(
            f"the label table at {self.uri} was given another shape by another tool: {what}. Undo that there, or go "
            "back to the version before with Delta's RESTORE: only tables as labelmill made them are read and written."
        )

    @cached_property
    def files(self) -> list[LiveFile]:
        """In the order of the log. TableError: some lie elsewhere."""
        found = [_live_file(action) for action in pa.table(self.delta.get_add_actions(flatten=True)).to_pylist()]
        if elsewhere := [file.path for file in found if "://" in file.path or file.path.startswith(("/", "file:"))]:
            raise TableError(
                f"the label table at {self.uri} consists of files elsewhere, such as {elsewhere[0]}: expected a copy "
                "with files of its own (in Spark, CREATE TABLE … DEEP CLONE instead of SHALLOW)."
            )
        return found

    @property
    def has_deletion_vectors(self) -> bool:
        """Whether rows may be deleted in files."""
        return "deletionVectors" in (self.delta.protocol().reader_features or ())

    @cached_property
    def kept(self) -> dict[str, pa.BooleanArray]:
        """By path of a file in which rows are deleted, which of its rows are not."""
        if not self.has_deletion_vectors:
            return {}
        try:
            vectors = pa.table(self.delta.deletion_vectors())
        except (DeltaError, OSError) as exc:
            raise TableError(
                f"which rows of the label table at {self.uri} are deleted cannot be read: {one_line(exc)}. Restore "
                "what is missing, or the table's version before (Delta's RESTORE)."
            ) from exc
        root = unquote(self.delta.table_uri).rstrip("/") + "/"
        paths = [unquote(uri).removeprefix(root) for uri in vectors["filepath"].to_pylist()]
        if unknown := set(paths) - {file.path for file in self.files}:
            raise TableError(f"rows of {min(unknown)} are deleted, which is no file of the label table at {self.uri}.")
        return dict(zip(paths, (row.values for row in vectors["selection_vector"]), strict=True))

    def rows(self, file: LiveFile, columns: Sequence[str]) -> pa.Table:
        """The rows of a file that are not deleted, with these columns of SCHEMA. TableError: it is gone, or damaged."""
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        try:
            rows = read_parquet(self.store.read(file.path), [name for name in columns if name != PARTITION])
            if PARTITION in columns:
                rows = rows.append_column(PARTITION, pa.repeat(pa.scalar(file.day, pa.date32()), rows.num_rows))
            rows = rows.select(schema.names).cast(schema)  # other tools may write views of strings, or other times
        except NotFoundError as exc:
            raise self._gone(file) from exc
        except (DataError, KeyError, pa.ArrowException) as exc:
            raise self._damaged(file, first_line(exc)) from exc
        if (kept := self.kept.get(file.path)) is None:
            return rows
        return pa.concat_tables([rows.slice(0, len(kept)).filter(kept), rows.slice(len(kept))])

    def lost(self, files: Sequence[LiveFile]) -> list[LiveFile]:
        """Those of them that are gone from the folder, or are not as they were committed."""
        lost = set(lost_files(self.store, {file.path: file.size_bytes for file in files}))
        return [file for file in files if file.path in lost]

    def check_there(self, files: Sequence[LiveFile]) -> None:
        """TableError: one of them is lost."""
        for file in self.lost(files)[:1]:
            raise self._damaged(file, "it has another size") if self.store.exists(file.path) else self._gone(file)

    def _damaged(self, file: LiveFile, why: str) -> TableError:
        return TableError(
            f"{self.store.address(file.path)} is damaged: {why}. Restore it, or delete it and run `labelmill labels "
            f"repair {self.uri} --forget`: the next run labels its pictures again."
        )

    def _gone(self, file: LiveFile) -> TableError:
        return TableError(
            f"{self.store.address(file.path)} is gone, which the label table needs: another program deleted it (a "
            f"VACUUM of a few hours?). Restore it, or run `labelmill labels repair {self.uri} --forget`: the next run "
            "labels its pictures again."
        )


def _live_file(action: dict[str, Any]) -> LiveFile:
    day = action.get(f"partition.{PARTITION}")
    return LiveFile(unquote(action["path"]), action["size_bytes"], day, action.get("num_records") or 0, action)


def _kind(field: Field) -> str:
    """What a reader must know of a column's type; whether it may be null is of no matter."""
    kind = re.sub(r'"(nullable|containsNull)":false', r'"\1":true', field.type.to_json())
    return re.sub(r'"metadata":\{[^}]*\}', "", kind)


def one_line(exc: BaseException) -> str:
    """deltalake puts the cause, a full disk say, on a line of its own, behind an arrow in red."""
    lines = [line.strip(" ↳") for line in re.sub(r"\x1b\[[0-9;]*m", "", str(exc)).splitlines()]
    said = ": ".join(line for line in lines if line)[:500] or type(exc).__name__
    return f"{said.rstrip('.')}.{_MEND}" if "eature" in said else said
