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
from functools import cache, cached_property
from io import FileIO
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from labelmill.address import path_uri, split_uri
from labelmill.errors import ChangedError, NotFoundError, StorageError
from labelmill.storage.files.refusals import explained
from labelmill.storage.files.tree import files_below
from labelmill.storage.files.version import etag_of, is_version
from labelmill.storage.store import LISTING_SCHEMA, SCRATCH, ObjectInfo, Store
from labelmill.storage.traffic import note_traffic

__all__ = ["FolderStore"]

logger = logging.getLogger(__name__)

BATCH_ROWS = 10_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# An empty segment, "." or "..", or a zero byte: no such name can be in a folder, and ".." would leave it.
_NOT_A_KEY = re.compile(r"(^|/)\.{0,2}(/|\Z)|\0")
_NAMED = 5  # of many links
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class _NoHardLinksError(StorageError): ...


@dataclass(frozen=True)
class FolderStore(Store):
    """Regular files below a folder, links followed; `version` says what their etags are.

    A link to a folder elsewhere is followed; one to a folder that is listed anyway, or to one around it, is
    not, so nothing is listed for ever. Writes are synced to disk before they show: a committed table names its files,
    and is unreadable without one.
    """

    def address(self, key: str) -> str:
        return path_uri(self._path_to(key))

    def list(
        self,
        prefix: str = "",
        *,
        in_order: bool = True,
        left_out: Callable[[str], bool] | None = None,
        unseen: builtins.list[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        files = self._files(prefix, left_out, unseen)
        while rows := builtins.list(islice(files, BATCH_ROWS)):
            yield _batch(rows)

    def keys(self, prefix: str = "") -> Iterator[str]:
        if _is_folder(self._folder):
            yield from (path[len(self._path_to("")) :] for path, _ in self._files(prefix))

    def folders(self, prefix: str = "") -> builtins.list[str]:
        top = self._top(prefix)
        try:
            with explained(top), os.scandir(top) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except NotFoundError:
            return []

    def info(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with explained(path):
            found = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):
            raise NotFoundError(f"expected a file, found {_kind(found)} at {path!r}")
        return ObjectInfo(
            path_uri(path), found.st_size, etag_of(found), EPOCH + timedelta(microseconds=found.st_mtime_ns // 1000)
        )

    def read(self, key: str, *, etag: str | None = None) -> bytes:
        return self._read(key, etag, lambda file: file.readall())

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        return self._read(key, etag, lambda file: os.pread(file.fileno(), length, start))

    def _read(self, key: str, etag: str | None, take: Callable[[FileIO], bytes]) -> bytes:
        path = self._path(key)
        # O_NONBLOCK: opening a named pipe would otherwise wait for its writer
        with explained(path), open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", 0) as file:  # noqa: PTH123
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise NotFoundError(f"expected a file, found {_kind(found)} at {path!r}")
            data = take(file)
            after = os.fstat(file.fileno())
        note_traffic(read_bytes=len(data))
        if etag is not None and not is_version(etag, after):
            now = etag_of(after)
            raise ChangedError(f"{path!r} was listed as {etag!r} and is {now!r} now: the next run lists it anew")
        return data

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with explained(path), _written_aside(path, data) as aside:
            os.replace(aside, path)  # noqa: PTH105
            _sync(os.path.dirname(path))  # noqa: PTH120

    def write_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with explained(path), _written_aside(path, data) as aside:
            won = _linked(aside, path)
            _sync(os.path.dirname(path))  # noqa: PTH120
        return won

    def honours_write_if_absent(self) -> bool:
        return _has_hard_links(self._folder)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with suppress(NotFoundError), explained(path):
            os.unlink(path)  # noqa: PTH108

    def _path(self, key: str) -> str:
        if _NOT_A_KEY.search(key):
            raise StorageError(f"expected a path below {self.uri!r} without empty, '.' or '..' parts, got {key!r}")
        return self._path_to(key)

    @cached_property
    def _folder(self) -> str:
        return "/" + split_uri(self.uri)[1]

    def _path_to(self, key: str) -> str:
        return f"{self._folder.rstrip('/')}/{key}"

    def _top(self, prefix: str) -> str:
        return self._path(prefix.removesuffix("/")) if prefix else self._folder

    def _files(
        self,
        prefix: str,
        left_out: Callable[[str], bool] | None = None,
        unseen: builtins.list[str] | None = None,
    ) -> Iterator[tuple[str, os.stat_result]]:
        if not _is_folder(self._folder):
            raise NotFoundError(f"expected a folder at {self.uri!r}, found none: create it, or correct the path")
        top, skip = self._top(prefix), len(self._path_to(""))
        if _is_folder(top):
            trees = (os.path.realpath(self._folder), os.path.realpath(top))
            nowhere: builtins.list[str] = []
            is_left_out = (lambda path: left_out(path[skip:])) if left_out else (lambda _: False)
            yield from files_below(top, trees, is_left_out, nowhere.append)
            if nowhere:
                logger.warning("%s, not listed: %s", _links(len(nowhere)), ", ".join(map(repr, nowhere[:_NAMED])))
            if unseen is not None:
                unseen.extend(map(path_uri, nowhere))


def _links(count: int) -> str:
    return "link that leads nowhere" if count == 1 else f"{count:,} links that lead nowhere"


def _is_folder(path: str) -> bool:
    try:
        with explained(path):
            return stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116
    except NotFoundError:
        return False


def _batch(rows: list[tuple[str, os.stat_result]]) -> pa.RecordBatch:
    paths = [path for path, _ in rows]
    try:
        uris = pa.array(paths, pa.string())
    except UnicodeEncodeError:
        uris = pa.array([path_uri(path) for path in paths], pa.string())
    return pa.record_batch(
        [
            uris,
            pa.array([found.st_size for _, found in rows], pa.int64()),
            pa.array([etag_of(found) for _, found in rows], pa.string()),
            pa.array([found.st_mtime_ns // 1000 for _, found in rows], pa.timestamp("us", "UTC")),
            pa.nulls(len(rows), pa.string()),
        ],
        schema=LISTING_SCHEMA,
    )


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
        with explained(str(nearest)), _written_aside(trial, b"") as first, _written_aside(trial, b"") as second:
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
