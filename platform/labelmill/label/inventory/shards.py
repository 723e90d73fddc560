"""Pictures in shards: tar files in WebDataset's layout, and Parquet files with a column of bytes."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from labelmill.errors import CredentialsError, DataError, NotFoundError, StorageError
from labelmill.label.inventory.item import member_of
from labelmill.label.inventory.patterns import keys_below, left_out, met
from labelmill.label.inventory.rows import picture_column
from labelmill.label.inventory.source import Source, item_batch
from labelmill.label.inventory.tar import Member, tar_members
from labelmill.parquet import parquet_bytes, read_parquet
from labelmill.storage import ObjectInfo, RangedFile, Store, open_store, split_uri

__all__ = ["Shards"]

logger = logging.getLogger(__name__)

_AT_ONCE = 8
_BATCH_ROWS = 8192
_ENDINGS = r"(?i)\.(tar|parquet)$"
_PACKED = r"(?i)\.(tgz|tar\.\w{2,4})$"
_INDEX_FORM = b"2"  # of a shard whose index is of another, all members are looked up anew: the first had no links
_INDEX_SCHEMA = pa.schema([("member", pa.string()), ("offset", pa.int64()), ("size_bytes", pa.int64())])


class Shards(Source):
    """One shard, or all below a prefix. What a tar holds is kept in `index` by its uri and etag.

    A row of a Parquet file is `<shard>#<column>/<row>`: another column of the same file is another picture.
    """

    def __init__(
        self, uri: str, column: str | None, exclude: tuple[str, ...], index: Store | None, timeout_s: float
    ) -> None:
        self._single = bool(re.search(_ENDINGS, uri))
        root, key = split_uri(uri)
        self._key = key if self._single else ""
        self._store = open_store(root if self._single else uri, timeout_s=timeout_s)
        self.describe = self._store.address(key) if self._single else self._store.uri
        self.base = self.describe.rpartition("/")[0] if self._single else self._store.uri
        self.sought = f"pictures in tar or parquet files, at {self.describe}"
        self._column, self._exclude, self._index = column, exclude, index

    def items(self, *, in_order: bool) -> Iterator[pa.RecordBatch]:
        """Shard by shard in their order, some looked through ahead."""
        shards = self._shards()
        with ThreadPoolExecutor(_AT_ONCE, "shards") as pool:
            coming: deque[Future[Iterator[pa.RecordBatch]]] = deque()
            try:
                for shard in shards:
                    coming.append(pool.submit(self._looked_through, shard))
                    if len(coming) > _AT_ONCE:
                        yield from coming.popleft().result()
                while coming:
                    yield from coming.popleft().result()
            finally:
                for future in coming:
                    future.cancel()

    def probe(self) -> str:
        shards = list(islice(self._shards(), 1000))
        if not shards:
            raise NotFoundError("reachable, but holds no tar or parquet files")
        first = self._first_member(shards[0])
        count = f"{len(shards):,}{'+' if len(shards) == 1000 else ''} {'shard' if len(shards) == 1 else 'shards'}"
        return f"reachable, {count}, the first begins with #{first}"

    def _first_member(self, shard: ObjectInfo) -> str:
        """Looks no further than it must: a shard may be large."""
        file = self._file(shard)
        if shard.uri.lower().endswith(".parquet"):
            items = next(self._members(shard), None)
            found = member_of(items["uri"][0].as_py()) if items else None
            name = found[1] if found else None
        else:
            member = next(tar_members(file, shard.uri), None)
            name = member.name if member else None
        if name is None:
            raise DataError(f"{shard.uri} holds no pictures, or is no plain tar or parquet file")
        return name

    def _shards(self) -> Iterator[ObjectInfo]:
        if self._single:
            yield self._store.info(self._key)
            return
        for page in self._store.list(left_out=left_out(self._exclude)):
            wanted = pc.or_(*(pc.match_substring_regex(page["uri"], ending) for ending in (_ENDINGS, _PACKED)))
            if self._exclude:
                wanted = pc.and_not(wanted, met(keys_below(page, self.base), self._exclude))
            for row in page.filter(wanted).to_pylist():
                yield ObjectInfo(**row)

    def _looked_through(self, shard: ObjectInfo) -> Iterator[pa.RecordBatch]:
        """The shard's items, found when this returns."""
        return iter(list(self._members(shard)))

    def _members(self, shard: ObjectInfo) -> Iterator[pa.RecordBatch]:
        """The shard's pictures. One that cannot be listed stands for itself, and its row will say why; but a Parquet
        file whose columns do not fit is a mistake in the spec.
        """
        file = self._file(shard)
        kind = re.search(_ENDINGS, shard.uri)
        try:
            if kind is None or shard.archive is not None:
                yield _items(shard, [Member(None, 0, 0)])
            elif kind[1].lower() == "tar":
                yield from self._tar_items(shard, file)
            else:
                yield from self._row_items(shard, file)
        except CredentialsError:
            raise
        except (StorageError, pa.ArrowException, OSError) as exc:
            logger.warning("%s: cannot be listed: %s", shard.uri, exc)
            yield _items(shard, [Member(None, 0, 0)])

    def _file(self, shard: ObjectInfo) -> RangedFile:
        root, key = split_uri(shard.uri)
        return RangedFile(open_store(root, timeout_s=self._store.timeout_s), key, shard.size_bytes, shard.etag)

    def _tar_items(self, shard: ObjectInfo, file: RangedFile) -> Iterator[pa.RecordBatch]:
        members = self._indexed(shard)
        if members is None:
            last = {member.name: member for member in tar_members(file, shard.uri)}  # of one name, as tar unpacks it
            members = list(last.values())
            self._keep(shard, members)
        yield _items(shard, members)

    def _row_items(self, shard: ObjectInfo, file: RangedFile) -> Iterator[pa.RecordBatch]:
        table = parquet.ParquetFile(file)
        column = picture_column(table.schema_arrow, self._column, shard.uri)
        for start in range(0, table.metadata.num_rows, _BATCH_ROWS):
            rows = range(start, min(start + _BATCH_ROWS, table.metadata.num_rows))
            # The size is not known without reading the pictures themselves.
            yield _items(shard, [Member(f"{column}/{row}", row, None) for row in rows])

    def _indexed(self, shard: ObjectInfo) -> list[Member] | None:
        if self._index is None:
            return None
        try:
            stored = read_parquet(self._index.read(_index_key(shard)))
        except (NotFoundError, DataError):  # a damaged one is written anew
            return None
        kept = stored.schema.metadata or {}
        if kept.get(b"etag") != shard.etag.encode() or kept.get(b"form") != _INDEX_FORM:
            return None
        return [Member(row["member"], row["offset"], row["size_bytes"]) for row in stored.to_pylist()]

    def _keep(self, shard: ObjectInfo, members: list[Member]) -> None:
        if self._index is None:
            return
        columns = [[getattr(member, name) for member in members] for name in ("name", "offset", "size_bytes")]
        schema = _INDEX_SCHEMA.with_metadata({"shard": shard.uri, "etag": shard.etag, "form": _INDEX_FORM})
        self._index.write(_index_key(shard), parquet_bytes(pa.table(columns, schema=schema)))


def _index_key(shard: ObjectInfo) -> str:
    return f"index/{hashlib.sha256(shard.uri.encode()).hexdigest()[:32]}.parquet"


def _items(shard: ObjectInfo, members: list[Member]) -> pa.RecordBatch:
    """ITEM_SCHEMA; a nameless member is the shard itself."""
    count = len(members)
    uris = [shard.uri if member.name is None else f"{shard.uri}#{member.name}" for member in members]
    sizes = [shard.size_bytes if member.name is None else member.size_bytes for member in members]
    return item_batch(
        uri=pa.array(uris, pa.string()),
        size_bytes=pa.array(sizes, pa.int64()),
        etag=pa.repeat(pa.scalar(shard.etag), count),
        modified_at=pa.repeat(pa.scalar(shard.modified_at, pa.timestamp("us", "UTC")), count),
        offset=pa.array([member.offset for member in members], pa.int64()),
        archive=pa.repeat(pa.scalar(shard.archive, pa.string()), count),
    )
