"""One version of an object as a file to seek in: what tar and Parquet readers ask for, over ranged reads."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from labelmill.errors import UnavailableError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from labelmill.storage.store import Store

__all__ = ["RangedFile"]

_JUMP_BYTES = 16 * 2**10
_STREAM_BYTES = 8 * 2**20
# Up to here reading on costs less than asking anew: a request to a bucket takes as long as 1 to 3 MB of its body.
_GAP_BYTES = 2**20


class RangedFile(io.RawIOBase):
    """Read-only. Whoever steps forward a little gets what follows from a large window; a jump fetches next to nothing.

    ChangedError: the object is no longer the version `etag`. Every read may raise the StorageErrors of the store.
    """

    def __init__(self, store: Store, key: str, size_bytes: int, etag: str) -> None:
        self.uri = store.address(key)
        self._store, self._key, self._size_bytes, self._etag = store, key, size_bytes, etag
        self._at = self._window_at = 0
        self._window = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def size(self) -> int:
        return self._size_bytes

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size_bytes - self._at))
        if wanted:
            start = self._at - self._window_at
            if not 0 <= start <= len(self._window) - wanted:
                self._fetch(wanted)
                start = 0
            view[:wanted] = self._window[start : start + wanted]
            self._at += wanted
        return wanted

    def _fetch(self, wanted: int) -> None:
        goes_on = self._window and 0 <= self._at - self._window_at <= len(self._window) + _GAP_BYTES
        length = min(max(wanted, _STREAM_BYTES if goes_on else _JUMP_BYTES), self._size_bytes - self._at)
        self._window = self._store.read_range(self._key, self._at, length, etag=self._etag)
        self._window_at = self._at
        if len(self._window) < length:
            raise UnavailableError(
                f"{self.uri!r}: expected {length:,} bytes at {self._at:,}, got {len(self._window):,}"
            )
