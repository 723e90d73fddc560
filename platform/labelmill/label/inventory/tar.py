"""The members of a tar shard and where their bytes begin, found from header to header without reading a picture.

The layout is WebDataset's (https://github.com/webdataset/webdataset): plain tar, files that belong together share a
name up to its first dot. Members that end like a picture are pictures; labels, captions and the like are passed over.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from labelmill.errors import ImageError, UnreadableError, UnsupportedError

__all__ = ["Member", "damage_of", "tar_members"]

logger = logging.getLogger(__name__)

_PICTURES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".heic",
    ".heif",
)
_BLOCK = tarfile.BLOCKSIZE
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Member:
    """A picture in a tar: its name, the byte at which it begins, its size. Without a name: the tar is damaged here."""

    name: str | None
    offset: int
    size_bytes: int | None


def tar_members(file: io.RawIOBase, uri: str) -> Iterator[Member]:
    """The pictures of a tar in its order; where it is damaged or cut short, one nameless member at the end says so."""
    try:
        archive = tarfile.TarFile(fileobj=file, mode="r", errorlevel=2)
    except tarfile.TarError:
        yield Member(None, 0, 0)
        return
    while True:
        try:
            found = archive.next()
        except tarfile.TarError:
            found = None
        archive.members = []  # type: ignore[attr-defined]  # it would hold every header until the end
        if found is None:
            break
        if found.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and found.name.lower().endswith(_PICTURES):
            yield Member(_as_text(found.name), found.offset_data, found.size)
    if _is_damaged(file, archive.offset, uri):
        yield Member(None, min(archive.offset, file.seek(0, io.SEEK_END)), 0)


def damage_of(file: io.RawIOBase, offset: int) -> ImageError:
    """What is wrong with a tar from the byte `offset` on, as the error of one row."""
    file.seek(offset)
    start = file.read(_BLOCK) or b""
    packing = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    if offset == 0 and packing:
        return UnsupportedError(
            f"expected a plain tar, got one packed with {packing}, which cannot be read in parts: unpack it"
        )
    if offset == 0:
        return UnreadableError("expected a tar, got something else: its first header is damaged or missing")
    what = "ends here" if len(start) < _BLOCK else "has no valid header here"
    return UnreadableError(
        f"the tar is damaged or cut short: it {what}, at byte {offset:,}; what followed is lost. Write it anew"
    )


def _is_damaged(file: io.RawIOBase, offset: int, uri: str) -> bool:
    """A tar ends with blocks of zeros. tarfile takes a damaged header for the end, and so would we."""
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(offset)
    end = file.read(_BLOCK) or b""
    if not end and offset == size_bytes:
        logger.warning("%s: has no end mark, so whether it is whole cannot be told", uri)
        return False
    return len(end) < _BLOCK or any(end)


def _as_text(name: str) -> str:
    """The name, with bytes that are not UTF-8 as \\x.."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
