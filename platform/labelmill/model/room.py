"""Room for what is kept on this machine: what was not used for longest goes first, and never what is in use."""

import fcntl
import logging
import os
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

__all__ = ["DIGESTS_NAME", "free_bytes", "make_room", "remove_unused"]

logger = logging.getLogger(__name__)

DIGESTS_NAME = "digests.json"  # of an entry: locked by every process that uses it, and written when it was used last
_KINDS = ("weights", "openvino", "int8")
_MOST_BYTES = 20 * 2**30


def make_room(cache: Path) -> None:
    """Remove what a killed process left half made, then what was not used for longest, until the rest is little."""
    entries = []
    for path in [path for kind in _KINDS for path in (cache / kind).glob("*") if path.suffix != ".lock"]:
        with suppress(OSError):
            if not (path.name.startswith(".") and remove_unused(path)):
                entries.append((_used_at(path), _size_bytes(path), path))
    held_bytes = sum(size_bytes for _, size_bytes, _ in entries)
    most_bytes = min(_MOST_BYTES, (free_bytes(cache) + held_bytes) // 2)
    for _, size_bytes, path in sorted(entries):
        if held_bytes <= most_bytes:
            break
        if remove_unused(path):
            logger.info("removed from the cache, to make room: %s", path)
            held_bytes -= size_bytes


def remove_unused(path: Path) -> bool:
    """False: it is in use, or being made, as far as anybody can know; on a disk without locks nobody can."""
    lock = path / DIGESTS_NAME
    if path.name.startswith("."):
        lock = path.with_name(f"{path.name[1:].rpartition('.')[0]}.lock")
    try:
        with lock.open("r+b") if lock.is_file() else nullcontext() as held:
            if held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return False
    return True


def free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _used_at(path: Path) -> float:
    file = path / DIGESTS_NAME
    return (file if file.exists() else path).stat().st_mtime


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")))
