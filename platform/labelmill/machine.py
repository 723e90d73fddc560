"""What a machine must give a process: a home, a name for its user, files that it may open, a folder for temporary ones.

Where one is missing it is made up for, or it is one line that names the setting which helps.
"""

import errno
import getpass
import logging
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labelmill.errors import NoRayError, StorageError

__all__ = ["on_this_machine", "ray_folder"]

logger = logging.getLogger(__name__)

_OPEN_FILES = 4096
_FEWEST_OPEN_FILES = 256
_ROOM_BYTES = 16 * 2**20
# The path of a Unix socket has 107 bytes (unix(7)), and Ray's longest goes on like this below a folder of ours.
_LONGEST_PLACE = 107 - len("/labelmill-12345678/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def on_this_machine() -> Iterator[None]:
    """Whatever a command does. StorageError in the place of what no code can mend: a full disk, too few open files."""
    _give_home()
    _allow_open_files()
    try:
        yield
    except OSError as exc:
        said = _said(exc)
        if said is None:
            raise
        raise StorageError(said) from exc


def ray_folder() -> Path:
    """A new folder for the sockets and logs of a Ray, in TMPDIR; or where that is too long for a socket or has no room,
    in one of the system's. NoRayError: no folder will do, or too few files may be opened."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < _FEWEST_OPEN_FILES:
        raise NoRayError(
            f"Ray wants to open {_FEWEST_OPEN_FILES} files at once at least, and this process may open {allowed}. "
            f"Allow more: ulimit -n {_OPEN_FILES}."
        )
    reasons = []
    for place in _places():
        try:
            folder = _folder_with_room(place)
        except OSError as exc:
            reasons.append(f"{place}: {exc.strerror}")
            continue
        if reasons:
            logger.info("the files of Ray go to %s instead of TMPDIR, which is %s", place, reasons[0])
        return folder
    raise NoRayError(
        f"Ray finds no folder for its files: {'; '.join(reasons)}. Set TMPDIR to a folder with "
        f"{_ROOM_BYTES >> 20} MB of room whose path has at most {_LONGEST_PLACE} bytes."
    )


def _places() -> list[str]:
    places = ["/tmp", "/var/tmp"]  # noqa: S108 - the folder in it gets a name that nobody can know
    with suppress(FileNotFoundError):
        places.insert(0, tempfile.gettempdir())
    return list(dict.fromkeys(places))


def _folder_with_room(place: str) -> Path:
    """Tried, since a quota does not show in what a disk says of itself."""
    if len(os.fsencode(place)) > _LONGEST_PLACE:
        raise OSError(errno.ENAMETOOLONG, f"a path of more than {_LONGEST_PLACE} bytes is too long for Ray's sockets")
    folder = Path(tempfile.mkdtemp(prefix="labelmill-", dir=place))
    try:
        with (folder / "room").open("wb") as trial:
            os.posix_fallocate(trial.fileno(), 0, _ROOM_BYTES)
        (folder / "room").unlink()
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _give_home() -> None:
    """Libraries ask for both when they are imported, and who runs in a container may have neither."""
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)
        try:
            Path.home()
        except RuntimeError:
            os.environ["HOME"] = os.environ.get("LABELMILL_CACHE") or "/nonexistent"
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _said(exc: OSError) -> str | None:
    if exc.errno in (errno.EMFILE, errno.ENFILE):
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            f"{exc.filename or 'a file'} could not be opened: this process may open {allowed} files at once, and has. "
            f"Allow more: ulimit -n {_OPEN_FILES}."
        )
    if exc.errno == errno.ENOENT and exc.filename is None and "temporary directory" in str(exc):
        return f"no folder for temporary files can be written: {exc.strerror}. Set TMPDIR to one that can be."
    if exc.errno in _FULL:
        return (
            f"no room left for {exc.filename or 'a file'}: {exc.strerror}. Free some, or set TMPDIR (now "
            f"{tempfile.gettempdir()}) to a folder with more."
        )
    if exc.errno in _REFUSED and exc.filename is not None:
        return f"not allowed to access {exc.filename!r} as user {os.getuid()}: {exc.strerror}."
    return None
