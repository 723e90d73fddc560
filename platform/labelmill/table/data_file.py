"""The data files of a label table: plain Parquet, put under names of their own by whoever labelled their rows.

A worker hands back what a commit needs to know of the file. A committed file is never rewritten, and a file that nobody
committed is invisible.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.errors import NotFoundError
from labelmill.parquet import parquet_bytes, read_parquet
from labelmill.storage import Store
from labelmill.table.row import DATA_SCHEMA

__all__ = ["STATISTICS", "DataFile", "existing_data_file", "lost_files", "put_data_file"]

STATISTICS = ("uri", "status", "model", "bundle_digest", "settings_digest", "run_id")
"""The columns whose least and greatest value are known of each file, so that a reader need not open it."""

_LOOKS_AT_ONCE = 16


@dataclass(frozen=True)
class DataFile:
    """A data file that lies in the table's folder and waits to be committed."""

    path: str  # below the table's folder
    size_bytes: int
    labelled_on: str
    statistics: str  # JSON as Delta's protocol defines it: https://github.com/delta-io/delta/blob/master/PROTOCOL.md


def put_data_file(store: Store, path: str, rows: pa.Table, labelled_on: str) -> DataFile:
    """Write `rows` (DATA_SCHEMA) at `path`, unless a file lies there: then describe that one instead."""
    data = parquet_bytes(rows)
    if not store.write_if_absent(path, data):
        return existing_data_file(store, path, labelled_on)[0]
    return _describe(path, rows, len(data), labelled_on)


def existing_data_file(store: Store, path: str, labelled_on: str) -> tuple[DataFile, pa.Table]:
    """The data file that an earlier attempt left at `path`, and its rows. NotFoundError: there is none."""
    data = store.read(path)
    rows = read_parquet(data).cast(DATA_SCHEMA)
    return _describe(path, rows, len(data), labelled_on), rows


def lost_files(store: Store, sizes_bytes: Mapping[str, int]) -> list[str]:
    """Those of these paths where no file lies any more, or one of another size."""

    def is_lost(path: str) -> bool:
        try:
            return store.info(path).size_bytes != sizes_bytes[path]
        except NotFoundError:
            return True

    with ThreadPoolExecutor(_LOOKS_AT_ONCE, "lost") as looks:
        return [path for path, lost in zip(sizes_bytes, looks.map(is_lost, sizes_bytes), strict=True) if lost]


def _describe(path: str, rows: pa.Table, size_bytes: int, labelled_on: str) -> DataFile:
    ends = {name: pc.min_max(rows[name]).as_py() for name in STATISTICS}
    statistics = {
        "numRecords": rows.num_rows,
        "minValues": {name: end["min"] for name, end in ends.items()},
        "maxValues": {name: end["max"] for name, end in ends.items()},
        "nullCount": {name: rows[name].null_count for name in STATISTICS},
    }
    return DataFile(path, size_bytes, labelled_on, json.dumps(statistics))
