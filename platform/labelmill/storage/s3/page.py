"""One answer of a bucket to ListObjectsV2, and whether those that follow one another make a whole listing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.errors import StorageError, UnavailableError, first_line
from labelmill.storage.store import LISTING_SCHEMA, SCRATCH, ObjectInfo
from labelmill.storage.version import unquoted, version_of

__all__ = ["Page", "Progress"]

# Whose objects are not read at once. GLACIER_IR is, and so is whatever other stores call an archive.
_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_NEEDED = ("Key", "Size", "ETag", "LastModified")
_ASKED_AT_ONCE = 32
_EMPTY_PAGES = 1000  # in a row; a bucket full of marks of deletions has some


@dataclass(frozen=True)
class Page:
    """In columns; botocore's own parser takes 0.12 ms a key, this one a hundredth. What a server leaves out is None.

    `encoded`: the server says that it encodes names; they stand here as it wrote them. `archives` has the storage class
    of what lies in an archive.
    """

    keys: Sequence[str]
    sizes: Sequence[int | None]
    etags: Sequence[str | None]
    modified: Sequence[str | None]
    archives: Sequence[str | None]
    folders: Sequence[str]
    encoded: bool = False
    truncated: bool = False
    next_token: str | None = None

    @classmethod
    def parsed(cls, body: bytes, server: str) -> Page:
        """UnavailableError: the body is cut off, or the server failed while it wrote it. StorageError: no listing."""
        try:
            root = ElementTree.fromstring(body)
        except ElementTree.ParseError as exc:
            raise UnavailableError(f"{server} sent a listing that is cut off, or no listing: {exc}") from exc
        if root.tag.rpartition("}")[2] == "Error":
            raise UnavailableError(f"{server} failed to list: {root.findtext('Code') or 'it does not say why'}")
        if not root.tag.endswith("ListBucketResult"):
            raise StorageError(
                f"expected a listing from an S3 server, got <{root.tag}> from {server}: correct the endpoint"
            )
        space = root.tag.removesuffix("ListBucketResult")
        keys, sizes, etags, modified, classes = _columns(root, space)
        if None in keys or not all(size is None or size.isdecimal() for size in sizes):
            raise StorageError(f"{server} lists an object without a key, or with a size that is no number")
        return cls(
            keys=[key or "" for key in keys],
            sizes=[None if size is None else int(size) for size in sizes],
            etags=[unquoted(etag or "") or None for etag in etags],
            modified=modified,
            archives=[name if name in _ARCHIVES else None for name in classes],
            folders=[found.text or "" for found in root.iterfind(f"{space}CommonPrefixes/{space}Prefix")],
            encoded=root.findtext(f"{space}EncodingType") == "url",
            truncated=root.findtext(f"{space}IsTruncated") == "true",
            next_token=root.findtext(f"{space}NextContinuationToken") or None,
        )

    @property
    def is_empty(self) -> bool:
        return not self.keys and not self.folders

    def shown(self) -> Page:
        """Without the empty objects that stand for folders, and without our own half-written ones."""
        hidden = [
            (key[-1:] == "/" and size == 0) or SCRATCH in key for key, size in zip(self.keys, self.sizes, strict=True)
        ]
        return self._at([place for place, hide in enumerate(hidden) if not hide]) if any(hidden) else self

    def completed(self, info: Callable[[str], ObjectInfo | None]) -> Page:
        """With size, version and date of every object: what the listing leaves out is asked for singly, by its key.

        Where there is no answer (None), size and date are the version; an object that lacks these as well is left out.
        """
        known = zip(self.sizes, self.etags, self.modified, strict=True)
        lacking = [place for place, values in enumerate(known) if None in values]
        if not lacking:
            return self
        with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(lacking)), "listing") as pool:
            found = dict(zip(lacking, pool.map(lambda place: info(self.keys[place]), lacking), strict=True))
        sizes, etags, modified = list(self.sizes), list(self.etags), list(self.modified)
        for place, told in found.items():
            if told is not None:
                sizes[place], etags[place], modified[place] = told.size_bytes, told.etag, told.modified_at.isoformat()
            elif (size := sizes[place]) is not None and (date := modified[place]) is not None:
                etags[place] = version_of(None, size, datetime.fromisoformat(date))
        whole = replace(self, sizes=sizes, etags=etags, modified=modified)
        return whole._at([place for place in range(len(sizes)) if etags[place] is not None])

    def batch(self, base: str) -> pa.RecordBatch:
        """LISTING_SCHEMA, of a completed page."""
        columns = [[base + key for key in self.keys], self.sizes, self.etags, self.modified, self.archives]
        fields = [*LISTING_SCHEMA]
        fields[3] = pa.field("modified_at", pa.string())
        arrays = [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)]
        try:
            arrays[3] = pc.cast(arrays[3], pa.timestamp("us", "UTC"))
        except pa.ArrowInvalid as exc:
            raise StorageError(f"{base} is listed with a date that is none: {first_line(exc)}") from exc
        return pa.record_batch(arrays, schema=LISTING_SCHEMA)

    def _at(self, places: Sequence[int]) -> Page:
        return replace(
            self,
            keys=[self.keys[place] for place in places],
            sizes=[self.sizes[place] for place in places],
            etags=[self.etags[place] for place in places],
            modified=[self.modified[place] for place in places],
            archives=[self.archives[place] for place in places],
        )


def _columns(root: Any, space: str) -> list[list[str | None]]:
    """A list for each of _NEEDED and for the storage class: of each object what it says, in their order."""
    objects = root.findall(f"{space}Contents")
    columns = {tag: [found.text or None for found in root.iter(space + tag)] for tag in (*_NEEDED, "StorageClass")}
    if not columns["StorageClass"]:
        columns["StorageClass"] = [None] * len(objects)
    if any(len(column) != len(objects) for column in columns.values()):  # or one would get what is another's
        columns = {tag: [found.findtext(space + tag) or None for found in objects] for tag in columns}
    return list(columns.values())


class Progress:
    """Of one listing, whose pages are given in their order."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._seen: set[int] = set()  # of tokens and of pages, by hash
        self._empty_pages = 0

    def after(self, page: Page) -> str | None:
        """The token of the page that follows, None at the end. StorageError: the listing would end early, or never."""
        token = page.next_token
        if token is None:
            if page.truncated:
                raise self._misled("says that there is more, and gives no token to go on from")
            return None
        self._empty_pages = self._empty_pages + 1 if page.is_empty else 0
        if self._empty_pages == _EMPTY_PAGES:
            raise self._misled(f"says {_EMPTY_PAGES:,} times in a row that there is more, and lists nothing")
        content = (*page.keys, *page.folders)
        for mark in (hash(token), hash(content) if content else None):
            if mark in self._seen:
                raise self._misled("says that there is more, and begins anew with what it has listed already")
            if mark is not None:
                self._seen.add(mark)
        return token

    def _misled(self, what: str) -> StorageError:
        return StorageError(
            f"{self._server} cannot be listed to its end: it {what}. Nothing was concluded from what came; mend the "
            "server or what lies before it, or name the pictures by a manifest."
        )
