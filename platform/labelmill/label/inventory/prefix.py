"""Every object below a prefix."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from labelmill.errors import NotFoundError
from labelmill.label.inventory.patterns import left_out
from labelmill.label.inventory.source import Source, item_batch
from labelmill.storage import open_store

__all__ = ["Prefix"]


class Prefix(Source):
    """A folder or a bucket's prefix. A bucket is listed by many requests at once, one sub-prefix each; nobody looks
    into a folder that is to be excluded anyway."""

    def __init__(self, uri: str, exclude: tuple[str, ...], timeout_s: float) -> None:
        self._store = open_store(uri, timeout_s=timeout_s)
        self.describe = self.base = self._store.uri
        self._left_out = left_out(exclude)
        self.sought = f"pictures in {self._store.uri}"

    def items(self, *, in_order: bool) -> Iterator[pa.RecordBatch]:
        unseen: list[str] = []
        for page in self._store.list(in_order=in_order, left_out=self._left_out, unseen=unseen):
            yield item_batch(**{name: page[name] for name in page.schema.names})
        self.unseen = tuple(unseen)

    def probe(self) -> str:
        pages = (page.num_rows for page in self._store.list(left_out=self._left_out) if page.num_rows)
        first = next(pages, 0)
        if not first:
            raise NotFoundError("reachable, but holds no objects")
        more = "+" if next(pages, 0) else ""
        return f"reachable, {first:,}{more} {'object' if first == 1 else 'objects'}"
