"""The members of a tar shard and where their bytes begin, found from header to header without reading a picture.

The layout is WebDataset's (https://github.com/webdataset/webdataset): plain tar, files that belong together share a
name up to its first dot. What `images.sniff` takes for pictures are pictures; labels, captions and the like are passed
over. A link to a file of the tar is a picture of its own name, with the file's bytes; what is named like a picture and
is none, a pipe, a file with holes, a link out of the tar, is a member without a size, and its row says why.
"""

from __future__ import annotations

import io
import logging
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labelmill.errors import ImageError, UnreadableError, UnsupportedError
from labelmill.images.sniff import START_BYTES, ends_like_a_picture, is_picture

__all__ = ["Member", "damage_of", "no_bytes_of", "tar_members"]

logger = logging.getLogger(__name__)

_BLOCK = tarfile.BLOCKSIZE
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_FILES = tarfile.REGULAR_TYPES  # contiguous and sparse ones among them
_KINDS = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}
_MOST_LINKS = 40  # one after the other, as Linux has it


@dataclass(frozen=True, slots=True)
class Member:
    """A picture in a tar: its name, the byte at which it begins, its size; without a size, its header begins there, and
    says why it has no bytes. Without a name: the tar is damaged here."""

    name: str | None
    offset: int
    size_bytes: int | None


def tar_members(file: io.RawIOBase, uri: str) -> Iterator[Member]:
    """The pictures of a tar in its order, then the links; a name may come twice, and the later one counts. Where the
    tar is damaged or cut short, one nameless member at the end says so."""
    try:
        archive = tarfile.TarFile(fileobj=file, mode="r", errorlevel=2)
    except tarfile.TarError:
        yield Member(None, 0, 0)
        return
    links: dict[str, tarfile.TarInfo] = {}
    for header in _headers(archive):
        links.pop(_normal(header.name), None)
        if header.islnk() or header.issym():
            links[_normal(header.name)] = header
        elif _is_whole_file(header):
            if _is_picture(header.name, header, file):
                yield Member(_as_text(header.name), header.offset_data, header.size)
        elif not header.isdir() and ends_like_a_picture(header.name):
            yield _without_bytes(header)
    if links:
        yield from _linked(links, file)
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


def no_bytes_of(file: io.RawIOBase, offset: int) -> ImageError:
    """Why the member whose header begins at `offset` has no bytes of a picture, as the error of its row."""
    file.seek(offset)
    try:
        header = tarfile.TarFile(fileobj=file, mode="r", errorlevel=2).next()
    except tarfile.TarError:
        header = None
    if header is None:
        return damage_of(file, offset)
    if header.islnk() or header.issym():
        what = f"a link to {_as_text(header.linkname)!r}, and no file of that name lies in this tar"
    elif header.issparse():
        what = "stored with holes (a sparse file)"
    else:
        what = _KINDS.get(header.type, f"of the type {header.type.decode('latin-1')!r}")
    return UnsupportedError(f"expected a file in the tar, and this is {what}: put the picture itself there")


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        try:
            found = archive.next()
        except tarfile.TarError:
            found = None
        archive.members = []  # type: ignore[attr-defined]  # it would hold every header until the end
        if found is None:
            return
        yield found


def _is_whole_file(header: tarfile.TarInfo) -> bool:
    """Whether its bytes lie in the tar in one piece."""
    parts: Any = header.sparse
    return header.type in _FILES and (parts is None or sum(size for _, size in parts) == header.size)


def _is_picture(name: str, file_header: tarfile.TarInfo, file: io.RawIOBase) -> bool:
    def start() -> bytes:
        file.seek(file_header.offset_data)
        return file.read(min(START_BYTES, file_header.size)) or b""

    return is_picture(name, start)


def _linked(links: dict[str, tarfile.TarInfo], file: io.RawIOBase) -> Iterator[Member]:
    """The links that are pictures, with the bytes of the files to which they lead: found by a second look at the
    headers, so that a tar without links costs nothing more."""
    targets = {name: _target(name, links) for name in links}
    found: dict[str, list[tarfile.TarInfo]] = {name: [] for name in targets.values() if name is not None}
    file.seek(0)
    for header in _headers(tarfile.TarFile(fileobj=file, mode="r", errorlevel=2)):
        if (name := _normal(header.name)) in found and _is_whole_file(header):
            found[name].append(header)
    for name, link in links.items():
        files = found.get(targets[name] or "", [])
        # a hard link is to the file of that time, whatever takes its name later
        earlier = [header for header in files if link.islnk() and header.offset < link.offset]
        if not files:
            if ends_like_a_picture(link.name):
                yield _without_bytes(link)
        elif _is_picture(link.name, last := (earlier or files)[-1], file):
            yield Member(_as_text(link.name), last.offset_data, last.size)


def _target(name: str, links: dict[str, tarfile.TarInfo]) -> str | None:
    """The name to which a link leads in the end; None: out of the tar, or round in a circle."""
    for _ in range(_MOST_LINKS):
        parts = name.split("/")
        ways = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        way = next((way for way in ways if way in links), None)
        if way is None:
            return name
        link, rest = links[way], name[len(way) :].lstrip("/")
        start = posixpath.dirname(way) if link.issym() else ""
        name = _normal(posixpath.join(start, link.linkname, rest))
        if name == ".." or name.startswith("../"):
            return None
    return None


def _without_bytes(header: tarfile.TarInfo) -> Member:
    return Member(_as_text(header.name), header.offset, None)


def _normal(name: str) -> str:
    return posixpath.normpath(name)


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
