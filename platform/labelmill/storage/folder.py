"""A folder as an object store.

It uses the operating system's own calls: they address every name a file can have, where obstore's LocalStore refuses
a name with a control character and then lists nothing at all. Measured on 20,000 files of 10 KB, they cost less
besides: 5 us to list one (obstore 6) and 19 us to read one (obstore 35).
"""

import builtins
import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from io import FileIO
from itertools import islice
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pyarrow as pa

from labelmill.errors import ChangedError, ForbiddenError, NotFoundError, StorageError, UnavailableError
from labelmill.storage.store import LISTING_SCHEMA, SCRATCH, ObjectInfo, Store
from labelmill.storage.traffic import note_traffic

__all__ = ["FolderStore"]

logger = logging.getLogger(__name__)

BATCH_ROWS = 10_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# An empty segment, "." or "..", or a zero byte: no such name can be in a folder, and ".." would leave it.
_NOT_A_KEY = re.compile(r"(^|/)\.{0,2}(/|\Z)|\0")
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EHOSTDOWN,
    errno.ENETDOWN,
    errno.EMFILE,
    errno.ENFILE,
}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class _NoHardLinksError(StorageError): ...


@dataclass(frozen=True)
class FolderStore(Store):
    """Regular files below a folder, links followed. An etag is mtime in microseconds and size, both in hex.

    A file whose name is not UTF-8 has the uri `file://` and its bytes percent-encoded; every other uri is the plain
    path. A link to a folder elsewhere is followed; one to a folder that is listed anyway, or to one around it, is
    not, so nothing is listed for ever. Writes are synced to disk before they show: a committed table names its files,
    and is unreadable without one.
    """

    def address(self, key: str) -> str:
        return _uri(super().address(key))

    def list(self, prefix: str = "", *, in_order: bool = True) -> Iterator[pa.RecordBatch]:
        files = self._files(prefix)
        while rows := builtins.list(islice(files, BATCH_ROWS)):
            yield _batch(rows)

    def keys(self, prefix: str = "") -> Iterator[str]:
        skip = len(self.uri.rstrip("/")) + 1
        if _is_folder(self.uri):
            yield from (path[skip:] for path, _ in self._files(prefix))

    def folders(self, prefix: str = "") -> builtins.list[str]:
        top = self._top(prefix)
        try:
            with _explained(top), os.scandir(top) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except NotFoundError:
            return []

    def info(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with _explained(path):
            found = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):
            raise NotFoundError(f"expected a file, found {_kind(found)} at {path!r}")
        return ObjectInfo(
            _uri(path), found.st_size, _etag(found), EPOCH + timedelta(microseconds=found.st_mtime_ns // 1000)
        )

    def read(self, key: str, *, etag: str | None = None) -> bytes:
        return self._read(key, etag, lambda file: file.readall())

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        return self._read(key, etag, lambda file: os.pread(file.fileno(), length, start))

    def _read(self, key: str, etag: str | None, take: Callable[[FileIO], bytes]) -> bytes:
        path = self._path(key)
        # O_NONBLOCK: opening a named pipe would otherwise wait for its writer
        with _explained(path), open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", 0) as file:  # noqa: PTH123
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise NotFoundError(f"expected a file, found {_kind(found)} at {path!r}")
            data = take(file)
            after = _etag(os.fstat(file.fileno()))
        note_traffic(read_bytes=len(data))
        if etag is not None and etag != after:
            raise ChangedError(f"{path!r} was listed as {etag!r} and is {after!r} now: the next run lists it anew")
        return data

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with _explained(path), _written_aside(path, data) as aside:
            os.replace(aside, path)  # noqa: PTH105
            _sync(os.path.dirname(path))  # noqa: PTH120

    def write_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with _explained(path), _written_aside(path, data) as aside:
            won = _linked(aside, path)
            _sync(os.path.dirname(path))  # noqa: PTH120
        return won

    def honours_write_if_absent(self) -> bool:
        return _has_hard_links(self.uri)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with suppress(NotFoundError), _explained(path):
            os.unlink(path)  # noqa: PTH108

    def _path(self, key: str) -> str:
        if _NOT_A_KEY.search(key):
            raise StorageError(f"expected a path below {self.uri!r} without empty, '.' or '..' parts, got {key!r}")
        return f"{self.uri.rstrip('/')}/{key}"

    def _top(self, prefix: str) -> str:
        return self._path(prefix.removesuffix("/")) if prefix else self.uri

    def _files(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        if not _is_folder(self.uri):
            raise NotFoundError(f"expected a folder at {self.uri!r}, found none: create it, or correct the path")
        top = self._top(prefix)
        if _is_folder(top):
            yield from _walk(top, (os.path.realpath(self.uri), os.path.realpath(top)))


def _is_folder(path: str) -> bool:
    try:
        with _explained(path):
            return stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116
    except NotFoundError:
        return False


def _walk(top: str, trees: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file below `top`. `trees` are the real folders in which this walk already is."""
    pending = [(top, trees)]
    while pending:
        folder, trees = pending.pop()
        with _explained(folder), os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        inner = []
        for entry in ordered:
            found = _stat(entry)
            if found is None or entry.name.startswith(SCRATCH):
                continue
            if stat.S_ISREG(found.st_mode):
                yield entry.path, found
            elif stat.S_ISDIR(found.st_mode):
                if not entry.is_symlink():
                    inner.append((entry.path, trees))
                elif linked := _new_tree(entry.path, trees):
                    inner.append((entry.path, (*trees, linked)))
        pending.extend(reversed(inner))


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    """None for what was removed since the folder was read, and for a link that leads nowhere."""
    try:
        with _explained(entry.path):
            return entry.stat()
    except StorageError as exc:
        if not isinstance(exc.__cause__, FileNotFoundError) and not entry.is_symlink():
            raise
        if entry.is_symlink():
            logger.warning("link that leads nowhere, not listed: %r", entry.path)
        return None


def _new_tree(link: str, trees: tuple[str, ...]) -> str | None:
    target = os.path.realpath(link)
    if any(f"{target}/".startswith(f"{tree}/") or f"{tree}/".startswith(f"{target}/") for tree in trees):
        logger.info("link to a folder that is listed anyway, not followed: %r", link)
        return None
    return target


def _batch(rows: list[tuple[str, os.stat_result]]) -> pa.RecordBatch:
    paths = [path for path, _ in rows]
    try:
        uris = pa.array(paths, pa.string())
    except UnicodeEncodeError:
        uris = pa.array([_uri(path) for path in paths], pa.string())
    return pa.record_batch(
        [
            uris,
            pa.array([found.st_size for _, found in rows], pa.int64()),
            pa.array([_etag(found) for _, found in rows], pa.string()),
            pa.array([found.st_mtime_ns // 1000 for _, found in rows], pa.timestamp("us", "UTC")),
        ],
        schema=LISTING_SCHEMA,
    )


def _uri(path: str) -> str:
    """The path itself; RFC 8089 where its bytes are not UTF-8 and no string column could hold them."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def _etag(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns // 1000:x}-{found.st_size:x}"


@contextmanager
def _written_aside(path: str, data: bytes) -> Iterator[str]:
    """The data, complete and on disk, under a name of our own beside `path`; removed afterwards."""
    folder = os.path.dirname(path)  # noqa: PTH120
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    aside = f"{folder}/{SCRATCH}{uuid4().hex}"
    try:
        with open(aside, "xb") as file:  # noqa: PTH123
            file.write(data)
            note_traffic(written_bytes=len(data))
            file.flush()
            os.fsync(file.fileno())
        yield aside
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside)  # noqa: PTH108


def _linked(aside: str, path: str) -> bool:
    """Give the file its name unless the name is taken: whole at once, and atomic across processes and NFS clients."""
    try:
        os.link(aside, path)
    except FileExistsError:
        # NFS may repeat a request whose answer was lost: then the name that "exists" is ours, and the file has two
        return os.stat(aside).st_nlink == 2  # noqa: PTH116
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS:
            raise
        raise _NoHardLinksError(
            f"expected a file system with hard links to write {path!r} only if absent ({exc.strerror}): "
            "put this folder on a local disk, on NFS, or in an S3 bucket"
        ) from exc
    return True


@cache
def _has_hard_links(folder: str) -> bool:
    path = Path(folder)
    nearest = next((place for place in (path, *path.parents) if place.is_dir()), path)
    trial = f"{nearest}/{SCRATCH}{uuid4().hex}"
    try:
        with _explained(str(nearest)), _written_aside(trial, b"") as first, _written_aside(trial, b"") as second:
            return _linked(first, trial) and not _linked(second, trial)
    except _NoHardLinksError as exc:
        logger.info("no write-if-absent in %r: %s", folder, exc)
        return False
    finally:
        with suppress(OSError):
            Path(trial).unlink(missing_ok=True)


def _sync(folder: str) -> None:
    """Make a rename in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _kind(found: os.stat_result) -> str:
    return "a folder" if stat.S_ISDIR(found.st_mode) else "a device, socket or pipe"


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NotFoundError(f"no such file: {path!r}") from exc
    except IsADirectoryError as exc:
        raise NotFoundError(f"expected a file, found a folder: {path!r}") from exc
    except PermissionError as exc:
        raise ForbiddenError(f"not allowed to access {path!r} as user {os.getuid()}: {exc.strerror}") from exc
    except OSError as exc:
        if exc.errno == errno.EROFS:
            raise ForbiddenError(
                f"not allowed to write {path!r}: {exc.strerror}. Mount it writable, or name another folder in its place"
            ) from exc
        if exc.errno in _FULL:
            raise StorageError(
                f"no room for {path!r} ({exc.strerror}): free some, or give this folder a larger disk or quota"
            ) from exc
        kind = UnavailableError if exc.errno in _PASSING else StorageError
        raise kind(f"{path!r}: {exc.strerror or exc}") from exc
