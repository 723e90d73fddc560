"""What every object store can do, whatever lies behind it."""

import asyncio
import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from labelmill.errors import NotFoundError

__all__ = ["LISTING_SCHEMA", "SCRATCH", "ObjectInfo", "Store"]

LISTING_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("archive", pa.string()),
    ]
)
"""An object as a store lists it; `archive` is the storage class of one that cannot be read before it is restored."""

# Names of our own half-written files and throw-away keys begin like this; no listing shows them.
SCRATCH = ".labelmill-tmp-"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its full address, its size, and which version of its content this is (`modified_at` in UTC)."""

    uri: str
    size_bytes: int
    etag: str
    modified_at: datetime
    archive: str | None = None  # as a listing tells it


@dataclass(frozen=True)
class Store(ABC):
    """A folder, or a bucket with a prefix; made by `open_store`.

    `uri` is absolute and has no trailing slash. A key is what follows `uri` and one slash; a prefix is whole segments
    of a key, so "inbox" (or "inbox/") never means "inbox2/". Making one reaches for nothing; a pickled one connects
    anew on the other side, with the credentials it finds there.

    Every method raises NotFoundError, ForbiddenError or UnavailableError (after its own bounded retries, within about
    `timeout_s`), and StorageError for what none of these says.
    """

    uri: str
    timeout_s: float

    def address(self, key: str) -> str:
        """The full uri of a key: what `list` shows, and what `open_store(...)` and `read_pictures` take."""
        return f"{self.uri.rstrip('/')}/{key}"

    @abstractmethod
    def list(
        self,
        prefix: str = "",
        *,
        in_order: bool = True,
        left_out: Callable[[str], bool] | None = None,
        unseen: builtins.list[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Stream all objects below the prefix as batches of LISTING_SCHEMA; NotFoundError when the root is missing.

        Nobody looks into a folder whose key is `left_out`: it may be one that may not be read. A bucket has none to
        look into, and shows what lies below all the same. The order is the same each time; where that does not matter,
        a bucket is listed by several requests at once. The addresses of links that lead nowhere are added to `unseen`,
        as soon as it is through: what they are, or is below them, may still be there.
        """

    @abstractmethod
    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys below the prefix, for small listings; none when the folder is not there yet."""

    @abstractmethod
    def folders(self, prefix: str = "") -> builtins.list[str]:
        """The names, sorted, of what lies directly below the prefix and has keys below itself."""

    @abstractmethod
    def info(self, key: str) -> ObjectInfo: ...

    @abstractmethod
    def read(self, key: str, *, etag: str | None = None) -> bytes:
        """The whole object, in one request; ChangedError when `etag` is given and is no longer the object's."""

    @abstractmethod
    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` bytes from `start` (which lies in the object), fewer where it ends; else as `read`."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write or replace; a reader sees the old object or the new one, never a part."""

    @abstractmethod
    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Write unless the key exists; False when it did. Of many who try at once, exactly one gets True."""

    @abstractmethod
    def honours_write_if_absent(self) -> bool:
        """Whether the promise of `write_if_absent` holds here: tried on a throw-away key, once a store and process."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is fine."""

    def exists(self, key: str) -> bool:
        try:
            self.info(key)
        except NotFoundError:
            return False
        return True

    async def fetch(self, key: str, *, etag: str | None = None) -> bytes:
        """`read`, for a caller in an event loop."""
        return await asyncio.to_thread(self.read, key, etag=etag)
