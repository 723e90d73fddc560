"""An S3 Inventory: the daily or weekly list that Amazon writes of a bucket.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html. It is hours or days old: what was
deleted since ends as `missing`, and what was replaced as `changed`, to be tried again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from labelmill.errors import DataError, NotFoundError
from labelmill.label.inventory.manifest import malformed_is_told, stream_csv, unpacked
from labelmill.label.inventory.source import Source, item_batch
from labelmill.storage import RangedFile, open_object, split_uri

__all__ = ["S3Inventory"]

_BATCH_ROWS = 8192
# By the names of the CSV kind; those of the Parquet kind differ in case and underscores.
_KINDS = {
    "key": pa.string(),
    "size": pa.int64(),
    "etag": pa.string(),
    "lastmodifieddate": pa.timestamp("us", "UTC"),
    "islatest": pa.bool_(),
    "isdeletemarker": pa.bool_(),
    "storageclass": pa.string(),
    "intelligenttieringaccesstier": pa.string(),
}
# What is not read at once; GLACIER_IR and the tier ARCHIVE_INSTANT are.
_ARCHIVES = ["GLACIER", "DEEP_ARCHIVE"]
_ARCHIVE_TIERS = ["ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE", "DEEP_ARCHIVE_ACCESS"]


class S3Inventory(Source):
    """The newest version of every object that an inventory lists."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        self.describe, self._timeout_s = uri, timeout_s
        self.base = uri.rpartition("/")[0]  # replaced by the source bucket once the manifest is read
        self.sought = f"objects in the inventory {uri}"

    def items(self, *, in_order: bool) -> Iterator[pa.RecordBatch]:
        report = self._report()
        for entry in report["files"]:
            for batch in self._rows(report, f"{split_uri(self.describe)[0]}/{entry['key']}", entry.get("size")):
                yield _items(batch, report["sourceBucket"], encoded=report["fileFormat"] == "CSV")

    def probe(self) -> str:
        report = self._report()
        return f"of s3://{report['sourceBucket']}, {len(report['files'])} {report['fileFormat']} files"

    def _report(self) -> dict[str, Any]:
        with open_object(self.describe, timeout_s=self._timeout_s) as file:
            data = file.readall()
        try:
            report: dict[str, Any] = json.loads(data)
            kind, names = report["fileFormat"], [entry["key"] for entry in report["files"]]
            report["sourceBucket"], report["fileSchema"], [entry.get("size") for entry in report["files"]]
        except (ValueError, KeyError, TypeError) as exc:
            raise DataError(
                f"{self.describe}: expected the manifest.json of an S3 Inventory, got something else"
            ) from exc
        if kind not in ("CSV", "Parquet"):
            raise DataError(
                f"{self.describe}: expected an inventory in CSV or Parquet, got {kind}: set its output format"
            )
        if not names:
            raise DataError(f"{self.describe}: expected data files, found none: the inventory is empty")
        self.base = f"s3://{report['sourceBucket']}"
        return report

    def _rows(self, report: dict[str, Any], uri: str, size_bytes: object) -> Iterator[pa.RecordBatch]:
        with self._opened(uri, size_bytes) as file, malformed_is_told(uri):
            if report["fileFormat"] == "CSV":
                names = [_plain(name) for name in report["fileSchema"].split(",")]
                wanted = {name: kind for name, kind in _KINDS.items() if name in names}
                yield from stream_csv(unpacked(file), wanted, names)
                return
            table = parquet.ParquetFile(file, buffer_size=2**22)
            stored = {_plain(name): name for name in table.schema_arrow.names}
            wanted = {name: kind for name, kind in _KINDS.items() if name in stored}
            for batch in table.iter_batches(_BATCH_ROWS, columns=[stored[name] for name in wanted]):
                columns = {name: batch[stored[name]] for name in wanted}
                if pa.types.is_integer(columns.get("lastmodifieddate", pa.nulls(0)).type):
                    columns["lastmodifieddate"] = columns["lastmodifieddate"].cast(pa.timestamp("ms", "UTC"))
                yield pa.RecordBatch.from_pydict({name: columns[name].cast(kind) for name, kind in wanted.items()})

    def _opened(self, uri: str, size_bytes: object) -> RangedFile:
        """A file of the inventory, which is as long as its manifest says."""
        try:
            file = open_object(uri, timeout_s=self._timeout_s)
        except NotFoundError as exc:
            raise DataError(f"{self.describe}: names the file {uri}, which is not there: {_ANOTHER}") from exc
        if isinstance(size_bytes, int) and file.size() != size_bytes:
            raise DataError(
                f"{self.describe}: says that {uri} has {size_bytes:,} bytes, and it has {file.size():,}: {_ANOTHER}"
            )
        return file


_ANOTHER = "restore it, or take the inventory of another day"


def _plain(name: str) -> str:
    return name.strip().replace("_", "").lower()


def _items(batch: pa.RecordBatch, bucket: str, *, encoded: bool) -> pa.RecordBatch:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    keys = columns["key"]
    if encoded:
        coded = pc.match_substring_regex(keys, "[%+]")
        plain = [unquote_plus(key) for key in keys.filter(coded).to_pylist()]
        keys = pc.replace_with_mask(keys, coded, pa.array(plain, pa.string()))
    items = item_batch(
        uri=pc.binary_join_element_wise(f"s3://{bucket}/", keys, ""),
        size_bytes=columns.get("size"),
        etag=_etags(columns.get("etag")),
        modified_at=columns.get("lastmodifieddate"),
        archive=_archives(columns),
    )
    return items.filter(_are_objects(columns, keys))


def _etags(etags: pa.Array | None) -> pa.Array | None:
    if etags is None:
        return None
    bare = pc.utf8_trim(etags, '"')
    return pc.if_else(pc.equal(bare, ""), pa.scalar(None, pa.string()), bare)


def _archives(columns: dict[str, pa.Array]) -> pa.Array:
    """The storage class, or the tier of INTELLIGENT_TIERING, of what lies in an archive."""
    nothing = pa.nulls(len(columns["key"]), pa.string())
    classes, tiers = (columns.get(name, nothing) for name in ("storageclass", "intelligenttieringaccesstier"))
    tiers = pc.if_else(pc.is_in(tiers, pa.array(_ARCHIVE_TIERS)), tiers, nothing)
    named = pc.binary_join_element_wise("INTELLIGENT_TIERING", tiers, " ")
    return pc.coalesce(pc.if_else(pc.is_in(classes, pa.array(_ARCHIVES)), classes, nothing), named)


def _are_objects(columns: dict[str, pa.Array], keys: pa.Array) -> pa.Array:
    """Not a version that was replaced, not the mark of a deletion, not the empty object that stands for a folder."""
    no = pa.array([False] * len(keys))
    size = columns.get("size", pa.nulls(len(keys), pa.int64()))
    folder = pc.and_(pc.ends_with(keys, "/"), pc.fill_null(pc.equal(size, 0), True))
    replaced = pc.invert(pc.fill_null(columns["islatest"], True)) if "islatest" in columns else no
    deletion = pc.fill_null(columns["isdeletemarker"], False) if "isdeletemarker" in columns else no
    return pc.invert(pc.or_(folder, pc.or_(replaced, deletion)))
