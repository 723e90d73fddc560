"""Every object below a prefix."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from labelmill.errors import NotFoundError
from labelmill.label.inventory.source import Source, item_batch
from labelmill.storage import open_store

__all__ = ["Prefix"]


class Prefix(Source):
    """A folder or a bucket's prefix. A bucket is listed by many requests at once, one sub-prefix each."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        self._store = open_store(uri, timeout_s=timeout_s)
        self.describe = self.base = self._store.uri
        self.sought = f"pictures in {self._store.uri}"

    def items(self, *, in_order: bool) -> Iterator[pa.RecordBatch]:
        for page in self._store.list(in_order=in_order):
            yield item_batch(**{name: page[name] for name in page.schema.names})

    def probe(self) -> str:
        pages = (page.num_rows for page in self._store.list() if page.num_rows)
        first = next(pages, 0)
        if not first:
            raise NotFoundError("reachable, but holds no objects")
        more = "+" if next(pages, 0) else ""
        return f"reachable, {first:,}{more} {'object' if first == 1 else 'objects'}"
