"""The disk that a plan takes for a while: whether it is there, and what is said when it is full."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from labelmill.errors import StorageError, TableError

__all__ = ["check_disk", "full_disk_named"]


def check_disk(folder: Path, needed_bytes: int) -> None:
    """StorageError, if `folder` has not so much room."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StorageError(
            f"comparing the listing with the table takes about {_gb(needed_bytes)} of temporary files, and "
            f"{folder.parent} has {_gb(free)} free. Set TMPDIR to a folder with more room."
        )


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """StorageError for the block's error, if what it says is that the disk with `folder` is full."""
    try:
        yield
    except (OSError, duckdb.Error, TableError) as exc:
        if not (isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)) and not any(
            words in str(exc) for words in ("No space left", "quota exceeded", "max_temp_directory_size")
        ):
            raise
        raise StorageError(
            f"{folder.parent} is full. Comparing the listing with the table takes 23 bytes a row of the table, "
            "and about 100 a picture to label, or a picture listed where the table is large. "
            "Set TMPDIR to a folder with more room."
        ) from exc


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
