"""The hashes that stand for strings while a listing and a table are compared.

The hash is MD5 with a salt that nobody knows before the run. DuckDB's own `hash` is six times as fast, and gave 40 of
3 million file names the hash of another. Two names are taken for one with a chance of 2**-128 for each pair, a changed
picture for the old one with 2**-64: of 10**7 changed in a night, one would be missed in 10**12 nights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelmill.storage import etags_before

__all__ = ["both_hashes", "hashed", "hashed_before", "uri_hash"]

_BATCH_ROWS, _BATCH_S = 500_000, 1.0  # a slow listing tells soon that there is something to do


def hashed(items: Iterator[pa.RecordBatch], connection: duckdb.DuckDBPyConnection, salt: str) -> Iterator[pa.Table]:
    """The listing in tables of about half a million rows, or of what came in a second, with the columns `uri_hash` and
    `etag_hash`."""
    for table in _gathered(items):
        hashes = _hashes(table, connection, salt)
        for name in hashes.column_names:
            table = table.append_column(name, hashes[name])
        yield table


def hashed_before(
    rows: pa.Table, connection: duckdb.DuckDBPyConnection, salt: str
) -> tuple[NDArray[np.int64], pa.Table]:
    """Which rows are of a file, and their hashes with its etag in the form from before, as older tables have it."""
    before = etags_before(rows["uri"], rows["etag"])
    of_files = pc.is_valid(before)
    table = pa.table({"uri": rows["uri"], "etag": before}).filter(of_files)
    return np.flatnonzero(of_files.to_numpy(zero_copy_only=False)), _hashes(table, connection, salt)


def _hashes(table: pa.Table, connection: duckdb.DuckDBPyConnection, salt: str) -> pa.Table:
    connection.register("items", table)
    hashes = connection.sql(f"SELECT {both_hashes(salt)} FROM items").to_arrow_table()
    connection.unregister("items")
    return hashes


def uri_hash(salt: str) -> str:
    """64 bits of a column `uri`, in SQL."""
    return _low(_md5(salt, "uri"))


def both_hashes(salt: str) -> str:
    """The columns `uri_hash` and `etag_hash` (of uri and etag) in SQL, from `uri` and `etag`."""
    upper = f"({_md5(salt, 'uri')} >> 64)::UBIGINT"
    return f"{uri_hash(salt)} AS uri_hash, xor({upper}, {_low(_md5(salt, 'etag'))}) AS etag_hash"


def _md5(salt: str, column: str) -> str:
    return f"md5_number('{salt}' || {column})"


def _low(number: str) -> str:
    """DuckDB masks and shifts five times as fast as it takes md5_number_lower."""
    return f"({number} & {2**64 - 1})::UBIGINT"


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    rows, since = 0, time.monotonic()
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _BATCH_ROWS or time.monotonic() - since > _BATCH_S:
            yield pa.Table.from_batches(waiting)
            waiting, rows, since = [], 0, time.monotonic()
    if rows:
        yield pa.Table.from_batches(waiting)
