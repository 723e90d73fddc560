"""The bytes of the pictures that an inventory lists: of objects, of members of a tar, of rows of a Parquet file."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from labelmill.errors import (
    ArchivedError,
    ChangedError,
    CredentialsError,
    ForbiddenError,
    ImageError,
    NotFoundError,
    StorageError,
    TooLargeError,
    UnavailableError,
    UnreadableError,
)
from labelmill.label.inventory.item import member_of
from labelmill.label.inventory.tar import damage_of, no_bytes_of
from labelmill.model.answers import Answer
from labelmill.storage import RangedFile, open_object, open_store, read_pictures, read_ranges, split_uri

__all__ = ["MAX_PICTURE_BYTES", "Fetched", "fetch_ahead", "not_labelled", "read_items"]

MAX_PICTURE_BYTES = 256 * 2**20
# Members that lie close together come in one request: up to here a longer body costs less than a second request.
_SPAN_BYTES = 4 * 2**20
_GAP_BYTES = 256 * 2**10
_BATCHES_AHEAD = 2

Fetched = bytes | StorageError | ImageError
_STATUSES = {
    NotFoundError: "missing",
    ForbiddenError: "forbidden",
    ChangedError: "changed",
    ArchivedError: "archived",
}


@dataclass(frozen=True)
class _Item:
    index: int
    uri: str
    size_bytes: int | None
    etag: str
    offset: int | None

    @property
    def shard(self) -> str:
        return (member_of(self.uri) or (self.uri, ""))[0]

    @property
    def is_in_tar(self) -> bool:
        return self.offset is not None and self.shard.lower().endswith(".tar")


def read_items(items: pa.Table) -> list[Fetched]:
    """The bytes of each item (ITEM_SCHEMA) in their order, an error in its picture's place; many are in flight at once.

    A StorageError may pass; an ImageError is what the row says for good. An object or shard that is no longer the
    version listed is a ChangedError. CredentialsError is raised, as it is no picture's.
    """
    fetched: dict[int, Fetched] = {}
    objects: list[_Item] = []
    members: list[_Item] = []
    rows: list[_Item] = []
    for index, row in enumerate(items.select(["uri", "size_bytes", "etag", "offset"]).to_pylist()):
        item = _Item(index, **row)
        if item.offset is not None and member_of(item.uri) is None:
            fetched[index] = _no_listing(item)
        elif (item.size_bytes or 0) > MAX_PICTURE_BYTES:
            fetched[index] = _too_many_bytes(item.size_bytes or 0)
        elif item.size_bytes is None and item.is_in_tar:
            fetched[index] = _no_bytes(item)
        else:
            (objects if item.offset is None else members if item.is_in_tar else rows).append(item)
    _read_objects(objects, fetched)
    _read_members(members, fetched)
    for item in sorted(rows, key=lambda item: (item.shard, item.offset)):
        fetched[item.index] = _read_row(item)
    return [fetched[index] for index in range(items.num_rows)]


def fetch_ahead(items: pa.Table, batch_size: int) -> Iterator[list[Fetched]]:
    """Batches of the pictures' bytes, or why there are none, in the items' order, read ahead."""
    ahead: list[Future[list[Fetched]]] = []
    with ThreadPoolExecutor(_BATCHES_AHEAD, thread_name_prefix="read") as readers:
        for start in range(0, items.num_rows, batch_size):
            ahead.append(readers.submit(read_items, items.slice(start, batch_size)))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.pop(0).result()
        for future in ahead:
            yield future.result()


def not_labelled(reason: StorageError | ImageError) -> Answer:
    """What the row of a picture says that could not be fetched or may not be decoded."""
    error = " ".join(str(reason).split())
    if isinstance(reason, ImageError):
        return Answer(reason.status, error)
    return Answer(_STATUSES.get(type(reason), "fetch_failed"), error)


def _read_objects(items: Sequence[_Item], fetched: dict[int, Fetched]) -> None:
    sized = [item for item in items if item.size_bytes is not None]
    unsized = [item for item in items if item.size_bytes is None]
    read = read_pictures([(item.uri, item.etag) for item in sized])
    fetched.update(zip([item.index for item in sized], read, strict=True))
    # What nobody knows the size of is not read to its end on trust.
    starts = read_ranges([(item.uri, item.etag, 0, MAX_PICTURE_BYTES + 1) for item in unsized])
    for item, data in zip(unsized, starts, strict=True):
        whole = isinstance(data, StorageError) or len(data) <= MAX_PICTURE_BYTES
        fetched[item.index] = data if whole else _too_many_bytes(MAX_PICTURE_BYTES + 1)


def _read_members(items: Sequence[_Item], fetched: dict[int, Fetched]) -> None:
    spans = _spans(items)
    read = read_ranges([(span[0].shard, span[0].etag, span[0].offset or 0, _length(span)) for span in spans])
    for span, data in zip(spans, read, strict=True):
        for item in span:
            fetched[item.index] = data if isinstance(data, StorageError) else _cut_out(item, span[0].offset or 0, data)


def _spans(items: Sequence[_Item]) -> list[list[_Item]]:
    """Neighbours in one tar, to be read together."""
    spans: list[list[_Item]] = []
    for item in sorted(items, key=lambda item: (item.shard, item.offset)):
        if spans and _belongs(item, spans[-1]):
            spans[-1].append(item)
        else:
            spans.append([item])
    return spans


def _belongs(item: _Item, span: Sequence[_Item]) -> bool:
    if item.shard != span[0].shard or item.etag != span[0].etag:
        return False
    gap = _start(item) - _start(span[0]) - _length(span)
    return gap <= _GAP_BYTES and _length([*span, item]) <= _SPAN_BYTES


def _start(item: _Item) -> int:
    assert item.offset is not None
    return item.offset


def _length(span: Sequence[_Item]) -> int:
    return max(_start(item) + (item.size_bytes or 0) for item in span) - _start(span[0])


def _cut_out(item: _Item, span_start: int, data: bytes) -> Fetched:
    start, size_bytes = _start(item) - span_start, item.size_bytes or 0
    picture = data[start : start + size_bytes]
    if len(picture) < size_bytes:
        return UnreadableError(f"the tar ends inside this member, after {len(picture):,} of {size_bytes:,} bytes")
    return picture


def _read_row(item: _Item) -> Fetched:
    shard, member = member_of(item.uri) or (item.uri, "")
    column, row = member.rpartition("/")[0], _start(item)
    try:
        values, start = _ROWS.around(shard, item.etag, column, row)
        data = values[row - start].as_py()
    except CredentialsError:
        raise
    except StorageError as exc:
        return exc.with_traceback(None)
    except (pa.ArrowException, OSError, IndexError) as exc:
        return UnreadableError(f"the Parquet file is damaged: {' '.join(str(exc).split())[:200]}")
    if data is None:
        return UnreadableError(f"row {row:,} has no bytes in the column {column!r}")
    return data if len(data) <= MAX_PICTURE_BYTES else _too_many_bytes(len(data))


class _Rows:
    """The row group read last: neighbours come one after the other. Batches are fetched by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: tuple[tuple[str, str], parquet.ParquetFile] | None = None
        self._held: tuple[tuple[str, str, str, int], pa.ChunkedArray, int] | None = None

    def around(self, shard: str, etag: str, column: str, row: int) -> tuple[pa.ChunkedArray, int]:
        """The column's values in the row group that holds `row`, and the row with which it begins."""
        with self._lock:
            file = self._opened(shard, etag)
            group, start = _row_group(file.metadata, row)
            key = (shard, etag, column, group)
            if self._held is None or self._held[0] != key:
                self._held = None  # before the next is read: one fits into memory, two may not
                self._held = (key, _values(file.read_row_group(group, columns=[column]), column), start)
            return self._held[1], start

    def _opened(self, shard: str, etag: str) -> parquet.ParquetFile:
        if self._file is None or self._file[0] != (shard, etag):
            self._file = ((shard, etag), parquet.ParquetFile(_in_version(shard, etag)))
        return self._file[1]


_ROWS = _Rows()


def _in_version(shard: str, etag: str) -> RangedFile:
    root, key = split_uri(shard)
    store = open_store(root)
    return RangedFile(store, key, store.info(key).size_bytes, etag)


def _row_group(metadata: Any, row: int) -> tuple[int, int]:
    start = 0
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        if row < start + count:
            return group, start
        start += count
    raise IndexError(f"expected {row + 1:,} rows, found {start:,}")


def _values(table: pa.Table, column: str) -> pa.ChunkedArray:
    name, _, inner = column.partition(".")
    if column in table.column_names:
        return table[column]
    return pa.chunked_array([chunk.field(inner) for chunk in table[name].chunks], pa.binary())


def _no_bytes(item: _Item) -> StorageError | ImageError:
    """Why a member of a tar has no bytes of its own."""
    try:
        with _in_version(item.shard, item.etag) as file:
            return no_bytes_of(file, _start(item))
    except StorageError as exc:
        return exc.with_traceback(None)


def _no_listing(item: _Item) -> StorageError | ImageError:
    """Why a shard has no members, looked up again where its row is written."""
    try:
        with open_object(item.uri) as file:
            if item.uri.lower().endswith(".parquet"):
                return _damage_of_parquet(file)
            if item.offset or not _begins_well(file):
                return damage_of(file, item.offset or 0)
    except CredentialsError:
        raise
    except StorageError as exc:
        return exc.with_traceback(None)
    return _PASSING


_PASSING = UnavailableError("the shard could not be listed when the run began, and now it could: the next run lists it")


def _damage_of_parquet(file: RangedFile) -> StorageError | ImageError:
    try:
        parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as exc:
        return UnreadableError(f"expected a Parquet file: {' '.join(str(exc).split())[:200]}")
    return _PASSING


def _begins_well(file: RangedFile) -> bool:
    try:
        tarfile.TarFile(fileobj=file, mode="r")
    except tarfile.TarError:
        return False
    return True


def _too_many_bytes(size_bytes: int) -> TooLargeError:
    return TooLargeError(f"{size_bytes:,} bytes, more than the {MAX_PICTURE_BYTES:,} that are read for one picture")
