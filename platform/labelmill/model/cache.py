"""What this machine keeps, so as not to fetch or to convert it twice; any number of processes share it.

    <kind>/<key>.<random>/              files of an entry, complete and on disk before the folder has this name
    <kind>/<key>.<random>/digests.json  the sha256 of each; written when it was last used, locked by all that use it
    <kind>/.<key>.<random>/             an entry that is being made
    <kind>/<key>.lock                   locked by the one process that makes it

No file is ever changed: what differs from its digest is made anew beside it, under another name. A network whose
weights were half zeros would still load, and give every picture a wrong label.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from labelmill.errors import StorageError
from labelmill.model.room import DIGESTS_NAME, free_bytes, make_room, remove_unused

__all__ = ["cache_explained", "cache_folder", "check_cache", "is_kept", "kept"]

logger = logging.getLogger(__name__)

_NOT_OF_THE_FOLDER = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_LEAST_BYTES = 2**20  # less than any model takes
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

_Stamp = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class _Used:
    """An entry that was found to be sound; it is locked by the open file `lock` until this process ends."""

    folder: Path
    lock: int
    names: tuple[str, ...]
    stamp: _Stamp


_used: dict[Path, _Used] = {}


def cache_folder() -> Path:
    """Where this machine keeps fetched weights and converted models: $LABELMILL_CACHE, or ~/.cache/labelmill."""
    given = os.environ.get("LABELMILL_CACHE")
    folder = Path(given or "~/.cache/labelmill")
    with suppress(RuntimeError):
        folder = folder.expanduser()
    if given or folder.is_absolute():
        return folder.absolute()
    raise StorageError(
        f"no folder to keep models in: user {os.getuid()} has no home. Set LABELMILL_CACHE to a folder that can be "
        "written."
    )


def kept(kind: str, key: str, make: Callable[[Path], object]) -> Path:
    """The folder of an entry. `make` writes its files into the empty folder that it is given, unless they are there.

    What is there is compared with its digests once in each process, and again when its files have changed since. One
    process makes an entry while others wait for it. What has not been used for longest goes when more is kept than
    20 GiB, or than half of what the disk has for it; never what a living process uses.

    StorageError: an entry is missing, and the cache cannot be written.
    """
    place = cache_folder() / kind / key
    found = _sound(place)
    if found is None:
        with cache_explained():
            place.parent.mkdir(parents=True, exist_ok=True)
            make_room(cache_folder())
            with _only_one_at_a_time(place.with_name(f"{key}.lock")):
                found = _sound(place) or _made(place, make)
            make_room(cache_folder())
    return found


def is_kept(kind: str, key: str) -> bool:
    """Whether there is such an entry; not compared with its digests."""
    return bool(_newest_first(cache_folder() / kind / key))


def check_cache() -> str:
    """Whether entries can be made, found out without writing anything. StorageError: they cannot."""
    folder = cache_folder()
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise _unwritable(f"{nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _unwritable(f"no permission to write in {nearest}")
    room_bytes = free_bytes(nearest)
    if room_bytes < _LEAST_BYTES:
        raise _unwritable(f"{room_bytes:,} bytes are left there")
    return "writable"


@contextmanager
def cache_explained(*more: type[Exception]) -> Iterator[None]:
    """StorageError in the place of what a folder that cannot be written raises, or one of these errors."""
    caught: tuple[type[Exception], ...] = (OSError, *more)
    try:
        yield
    except caught as exc:
        if isinstance(exc, OSError) and exc.errno in _NOT_OF_THE_FOLDER:
            raise
        raise _unwritable((isinstance(exc, OSError) and exc.strerror) or exc) from exc


def _unwritable(reason: object) -> StorageError:
    return StorageError(
        f"the cache {cache_folder()} cannot be written: {reason}. Set LABELMILL_CACHE to a folder that can be, and has "
        "room."
    )


@contextmanager
def _only_one_at_a_time(path: Path) -> Iterator[None]:
    """The kernel lets go of the lock when its holder dies, so a killed conversion holds nobody up."""
    with path.open("wb") as lock:
        _lock(lock.fileno(), fcntl.LOCK_EX)
        yield


def _sound(place: Path) -> Path | None:
    """The entry's folder, if there is one that agrees with its digests: from now on this process uses it."""
    before = _used.get(place)
    if before and before.stamp == _stamp(before.folder, before.names):
        return before.folder
    for folder in _newest_first(place):
        if found := _taken(folder):
            return _use(place, found)
    return None


def _use(place: Path, found: _Used) -> Path:
    before = _used.get(place)
    _used[place] = found
    if before:
        os.close(before.lock)
    return found.folder


def _newest_first(place: Path) -> list[Path]:
    """More than one is there only while a damaged one is in use."""
    found = []
    for folder in place.parent.glob(f"{place.name}.*"):
        with suppress(OSError):
            found.append((folder.stat().st_mtime_ns, folder))
    return [folder for _, folder in sorted(found, reverse=True) if folder.suffix != ".lock"]


def _taken(folder: Path) -> _Used | None:
    """Locked, compared with its digests, and marked as used just now."""
    lock = None
    try:
        lock = os.open(folder / DIGESTS_NAME, os.O_RDONLY)
        _lock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # refused: somebody removes it
        digests = dict(json.loads((folder / DIGESTS_NAME).read_bytes()))
        names = tuple(digests)
        stamp = _stamp(folder, names)  # first, so that what changes meanwhile is compared again
        differs = [name for name in names if _digest(folder / name) != digests[name]]
        if stamp is None or not names or differs:
            raise ValueError(f"{', '.join(differs) or 'all of it'} differs from what was written")
    except (OSError, ValueError, TypeError) as exc:
        logger.warning("%s cannot be used, and is made anew: %s", folder, exc)
        if lock is not None:
            os.close(lock)
        return None
    with suppress(OSError):  # of another user, or on a disk that is read only
        os.utime(lock)
    return _Used(folder, lock, names, stamp)


def _lock(file: int, how: int) -> None:
    """Without locks a disk keeps more than it must, and what it keeps is right all the same."""
    try:
        fcntl.flock(file, how)
    except OSError as exc:
        if exc.errno not in _NO_LOCKS:
            raise


def _stamp(folder: Path, names: tuple[str, ...]) -> _Stamp | None:
    """What changes with the content of a file; None where one is missing."""
    try:
        found = [(folder / name).stat() for name in names]
    except OSError:
        return None
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found)


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _made(place: Path, make: Callable[[Path], object]) -> Path:
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        make(aside)
        digests = {file.name: _digest(file) for file in sorted(aside.iterdir())}
        (aside / DIGESTS_NAME).write_text(json.dumps(digests))
        for path in (*aside.iterdir(), aside):
            _sync(path)
        found = _taken(aside)
        if found is None:
            raise OSError(errno.EIO, "what is read there is not what was written")
        folder = aside.rename(place.with_name(aside.name[1:]))
        _sync(place.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _use(place, replace(found, folder=folder))
    for damaged in _newest_first(place):
        if damaged != folder:
            remove_unused(damaged)
    return folder


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
