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
from labelmill.label.todo.hashing import both_hashes, uri_hash
from labelmill.label.todo.room import check_disk, memory_bytes
from labelmill.table.row import FINAL
from labelmill.table.table import LabelTable

__all__ = ["Index", "TableKeys", "Wanted", "in_groups"]

_BATCH_ROWS = 1_000_000
_FILES = 256
_RESIDENT_ROW_BYTES = 18
_LISTED_BYTES = 100  # of a listed picture on disk: its uri and etag, compressed, and its hashes
_KEY = np.dtype(
    [("uri_hash", "<u8"), ("etag_hash", "<u8"), ("run", "<u4"), ("name", "u1"), ("bundle", "u1"), ("state", "u1")]
)
# A row that only tells of its picture; a final one; a final one of another prefix; one that says `deleted`.
_KNOWN, _DONE, _DONE_ELSEWHERE, _DELETED = range(4)
_UNSEEN, _SEEN, _NOT_EXPECTED = range(3)
_COLUMNS = ("uri", "etag", "status", "model", "bundle_digest", "settings_digest", "run_id")


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
        check_disk(folder, (table.num_rows if table else 0) * _KEY.itemsize)
        with ExitStack() as stack:
            files = [stack.enter_context(self._file(number).open("wb")) for number in range(_FILES)]
            for batch in self._scan(table) if table else ():
                keys = np.empty(batch.num_rows, _KEY)
                for name in _KEY.names or ():
                    keys[name] = batch[name].to_numpy()
                self.num_rows += len(keys)
                order, pieces = _by_file(keys["uri_hash"])
                keys = keys[order]
                for number, piece in pieces:
                    files[number].write(keys[piece].tobytes())

    def groups(self) -> list[range]:
        """The numbers of the files that are taken together: all, when they fit into memory."""
        resident_rows = memory_bytes() // 4 // _RESIDENT_ROW_BYTES
        count = min(_FILES, -(-max(1, self.num_rows) // resident_rows))
        if count > 1:
            check_disk(self._folder, self.num_rows * _LISTED_BYTES)
        ends = [_FILES * group // count for group in range(count + 1)]
        return [range(start, end) for start, end in itertools.pairwise(ends)]

    def index(self, files: range) -> Index:
        bits = np.array(list(self._wanted.bundles.values()), np.uint8 if len(self._wanted.models) <= 8 else np.int64)
        return Index({number: _Sorted(np.fromfile(self._file(number), _KEY), bits) for number in files})

    def gone(self, table: LabelTable, uri_hashes: NDArray[np.uint64]) -> Iterator[pa.RecordBatch]:
        """The newest row of each picture and name of a model with one of these hashes, unless it says `deleted`.

        Columns of the row, and `model` as the number of the first model of that name. The table is read once more,
        which only a night with deleted pictures pays for.
        """
        columns = (*_COLUMNS, "size_bytes", "modified_at")
        self._connection.register("gone", pa.table({"uri_hash": uri_hashes}))
        here = uri_hash(self.salt)
        names = [model.partition("@")[0] for model in self._wanted.models]
        number = _case("split_part(model, '@', 1)", {name: names.index(name) for name in self._wanted.names})
        rows = f"SELECT *, {number} AS number FROM labels WHERE {here} IN (SELECT uri_hash FROM gone)"
        newest = "QUALIFY row_number() OVER (PARTITION BY uri, number ORDER BY run_id DESC) = 1"
        sql = (
            f"SELECT uri, size_bytes, etag, modified_at, number::INTEGER AS model "
            f"FROM (SELECT * FROM ({rows}) WHERE number IS NOT NULL AND {self._is_below()} {newest}) "
            "WHERE status <> 'deleted' ORDER BY model, uri"
        )
        return table.select(self._connection, sql, columns, self._wanted.names, batch_rows=_BATCH_ROWS)

    def _scan(self, table: LabelTable) -> Iterator[pa.RecordBatch]:
        wanted = self._wanted
        final = [status for status in FINAL if status not in (*wanted.retry, "deleted")]
        bundle = _case("bundle_digest", {digest: place for place, digest in enumerate(wanted.bundles)})
        settings = f"settings_digest IN {_listed(wanted.settings)}"
        done = f"bundle IS NOT NULL AND {settings} AND status IN {_listed(final)}"
        # Without a NOT: DuckDB 2.0.0's planner fails over one around a comparison that a file's statistics decide.
        state = (
            f"CASE WHEN status = 'deleted' THEN {_DELETED} WHEN {done} AND {self._is_below()} THEN {_DONE} "
            f"WHEN {done} THEN {_DONE_ELSEWHERE} ELSE {_KNOWN} END"
        )
        tells = self._is_below() if wanted.below else "false"
        rows = f"SELECT *, {self._name()} AS name, {bundle} AS bundle FROM labels"
        sql = (
            f"SELECT {both_hashes(self.salt)}, coalesce(try_cast(split_part(run_id, '-', 1) AS UINTEGER), 0) AS run, "
            f"name::UTINYINT AS name, coalesce(bundle, 0)::UTINYINT AS bundle, ({state})::UTINYINT AS state "
            f"FROM ({rows}) WHERE name IS NOT NULL AND (state <> {_KNOWN} OR {tells})"
        )
        return table.select(self._connection, sql, _COLUMNS, wanted.names, batch_rows=_BATCH_ROWS)

    def _name(self) -> str:
        return _case("split_part(model, '@', 1)", {name: place for place, name in enumerate(self._wanted.names)})

    def _is_below(self) -> str:
        if not self._wanted.below:
            return "true"
        return f"({' OR '.join(f'starts_with(uri, {_quoted(start)})' for start in beginnings(self._wanted.below))})"

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:03d}.keys"


class Index:
    """The sorted keys of some of the files: what of the listing they hold, and what they hold that was not listed."""

    def __init__(self, files: dict[int, _Sorted]) -> None:
        self._files = files

    def look_up(
        self, uri_hashes: NDArray[np.uint64], etag_hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """For each picture the models that are done with it, as bits, and whether its uri is known at all."""
        done, known = np.zeros(len(uri_hashes), np.int64), np.zeros(len(uri_hashes), np.bool_)
        order, pieces = _by_file(uri_hashes)
        for number, piece in pieces:
            here = order[piece]
            done[here], known[here] = self._files[number].look_up(uri_hashes[here], etag_hashes[here])
        return done, known

    @property
    def num_listed(self) -> int:
        """How many known uris were looked up, each counted once."""
        return sum(int(np.count_nonzero(file.seen == _SEEN)) for file in self._files.values())

    def not_listed(self) -> NDArray[np.uint64]:
        """The hashes of the uris that were expected in the listing and never looked up."""
        return np.concatenate([file.uri_hash[file.seen == _UNSEEN] for file in self._files.values()])


class _Sorted:
    """The keys of one file, by uri; `seen` counts at the first key of each uri."""

    def __init__(self, keys: NDArray[Any], bits: NDArray[Any]) -> None:
        keys = _not_deleted(keys)
        done = (keys["state"] == _DONE) | (keys["state"] == _DONE_ELSEWHERE)
        order = np.argsort(keys["uri_hash"]) if done.all() else np.lexsort((~done, keys["uri_hash"]))
        keys, done = keys[order], done[order]
        first = _starts(keys["uri_hash"])
        keep = done | first  # a row that only tells of its picture says nothing beside one that does more
        keys, done, first = keys[keep], done[keep], first[keep]
        self.uri_hash, self.etag_hash = keys["uri_hash"].copy(), keys["etag_hash"].copy()
        self.done = np.where(done, bits[keys["bundle"]], bits.dtype.type(0))
        elsewhere = keys["state"] == _DONE_ELSEWHERE
        self.seen = np.where(elsewhere | ~first, np.uint8(_NOT_EXPECTED), np.uint8(_UNSEEN))

    def look_up(
        self, uri_hashes: NDArray[np.uint64], etag_hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        done = np.zeros(len(uri_hashes), self.done.dtype)
        known = np.zeros(len(uri_hashes), np.bool_)
        active = np.argsort(uri_hashes)  # looked up in order, neighbours lie in the same cache lines
        at = np.searchsorted(self.uri_hash, uri_hashes[active])
        active, at = self._same_uri(active, at, uri_hashes)
        known[active] = True
        self.seen[at] = _SEEN
        while active.size:
            same = self.etag_hash[at] == etag_hashes[active]
            done[active] = np.bitwise_or(done[active], np.where(same, self.done[at], self.done.dtype.type(0)))
            active, at = self._same_uri(active, at + 1, uri_hashes)
        return done, known

    def _same_uri(
        self, active: NDArray[np.intp], at: NDArray[np.intp], uri_hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Those whose key at `at` is still one of their own uri."""
        inside = at < len(self.uri_hash)
        active, at = active[inside], at[inside]
        same = self.uri_hash[at] == uri_hashes[active]
        return active[same], at[same]


def _by_file(uri_hashes: NDArray[np.uint64]) -> tuple[NDArray[np.intp], list[tuple[int, slice]]]:
    """An order in which the hashes of one file stand together, and where each file's stand in it."""
    numbers = (uri_hashes >> np.uint64(56)).astype(np.uint8)
    ends = np.cumsum(np.bincount(numbers, minlength=_FILES)).tolist()
    starts = [0, *ends[:-1]]
    pieces = [(n, slice(start, end)) for n, (start, end) in enumerate(zip(starts, ends, strict=True)) if end > start]
    return np.argsort(numbers, kind="stable"), pieces


def _starts(values: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a sorted array's value is not the one before it."""
    return np.concatenate([[True], values[1:] != values[:-1]]) if len(values) else np.zeros(0, np.bool_)


def _not_deleted(keys: NDArray[Any]) -> NDArray[Any]:
    """Without the rows that say `deleted`, and without all that a picture and model had before such a row."""
    deleted = keys["state"] == _DELETED
    if not deleted.any():
        return keys
    order = np.lexsort((keys["run"], keys["name"], keys["uri_hash"]))
    keys, deleted = keys[order], deleted[order]
    starts = _starts(keys["uri_hash"]) | _starts(keys["name"])
    group = np.cumsum(starts) - 1
    last = np.full(group[-1] + 1, -1)
    np.maximum.at(last, group[deleted], np.flatnonzero(deleted))
    newer: NDArray[Any] = keys[np.arange(len(keys)) > last[group]]
    return newer


def _case(column: str, values: dict[Any, Any]) -> str:
    whens = " ".join(f"WHEN {_quoted(key)} THEN {_quoted(value)}" for key, value in values.items())
    return f"CASE {column} {whens} END"


def _listed(values: Sequence[str]) -> str:
    return f"({', '.join(map(_quoted, values))})"


def _quoted(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
