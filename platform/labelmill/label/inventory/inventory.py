"""What there is to label: a listing of pictures, wherever it comes from, with the version of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from labelmill.address import beginnings
from labelmill.errors import NotFoundError
from labelmill.label.inventory.manifest import Manifest
from labelmill.label.inventory.narrowing import Narrowing
from labelmill.label.inventory.prefix import Prefix
from labelmill.label.inventory.s3_inventory import S3Inventory
from labelmill.label.inventory.shards import Shards
from labelmill.label.inventory.source import Source, with_versions
from labelmill.spec import Images
from labelmill.storage import Store

__all__ = ["Inventory", "open_inventory"]

_PROBED_BATCHES = 10


@dataclass(frozen=True)
class Inventory:
    """The pictures of one `images:` in a spec. `describe` names them in logs, receipts and errors.

    `complete_below` is the prefix below which this lists every object, so that what it does not list is gone; None
    where it cannot say so: a manifest, shards, or a prefix of which a part was chosen.
    """

    describe: str
    complete_below: str | None
    source: Source
    narrowing: Narrowing

    def list(self) -> Iterator[pa.RecordBatch]:
        """Stream the pictures as batches of ITEM_SCHEMA, in no order, and twice where a manifest names one twice.

        Raised at once, and not with the first batch: NotFoundError, where there are none; DataError, where the listing
        itself is malformed from its start. What is wrong with one picture or one shard is an item, and ends as its row.
        """
        batches = self._narrowed()
        if (first := next(batches, None)) is None:
            raise self._nothing()
        return map(with_versions, chain([first], batches))

    @property
    def unseen(self) -> tuple[str, ...]:
        """Addresses at or below which nothing is said to be gone, known when the listing is through."""
        return self.source.unseen

    def covers(self, uri: str) -> bool:
        """Whether a picture that is not listed is gone."""
        return self.complete_below is not None and uri.startswith(beginnings(self.complete_below))

    def probe(self) -> str:
        """What is found at a first look, in a few words; raises as `list` does."""
        return self.source.probe() + self._probe_patterns()

    def _probe_patterns(self) -> str:
        if not self.narrowing.by_pattern or isinstance(self.source, Shards):  # whose members take too long to list
            return ""
        for number, batch in enumerate(self.narrowing.of(self.source)):
            if batch.num_rows:
                return ""
            if number == _PROBED_BATCHES:
                return ", but none of the first meets the patterns"
        raise self._nothing()

    def _narrowed(self) -> Iterator[pa.RecordBatch]:
        return (batch for batch in self.narrowing.of(self.source) if batch.num_rows)

    def _nothing(self) -> NotFoundError:
        chosen = f" with {self.narrowing}" if self.narrowing.is_some else ""
        return NotFoundError(f"expected {self.source.sought}{chosen}, found none. Check `images` in the spec.")


def open_inventory(images: str | Images, index: Store | None = None, *, timeout_s: float = 60.0) -> Inventory:
    """The inventory that `images` of a spec describes; nothing is reached for yet.

    The members of tar shards are kept in the store `index`, so that a shard is looked through once. Each request gives
    up after about `timeout_s`.
    """
    if isinstance(images, str):
        images = Images(prefix=images)
    source = _source(images, index, timeout_s)
    narrowing = Narrowing(images.include, images.exclude, images.sample, images.limit)
    whole = isinstance(source, Prefix) and not narrowing.is_some
    return Inventory(source.describe, source.base if whole else None, source, narrowing)


def _source(images: Images, index: Store | None, timeout_s: float) -> Source:
    if images.prefix is not None:
        return Prefix(images.prefix, images.exclude, timeout_s)
    if images.manifest is not None:
        return Manifest(images.manifest, timeout_s)
    if images.inventory is not None:
        return S3Inventory(images.inventory, timeout_s)
    assert images.shards is not None
    return Shards(images.shards, images.column, images.exclude, index, timeout_s)
