"""The files below a folder, links followed, and nothing for ever."""

import logging
import os
import stat
from collections.abc import Callable, Iterator

from labelmill.errors import StorageError
from labelmill.storage.files.refusals import explained
from labelmill.storage.store import SCRATCH

__all__ = ["files_below"]

logger = logging.getLogger(__name__)


def files_below(
    top: str, trees: tuple[str, ...], left_out: Callable[[str], bool], unseen: Callable[[str], None]
) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file below `top`, in order. `trees` are the real folders in which this walk already is.

    `unseen` is told the path of a link that leads nowhere: to what was deleted, or to a volume that is not mounted.

    What is `left_out` by its path is not even looked at where it is no plain file: it may be a folder that may not be
    read, or one whose server hangs. A plain file is named all the same, unless it cannot be looked at.
    """
    pending = [(top, trees)]
    while pending:
        folder, trees = pending.pop()
        with explained(folder), os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        inner = []
        for entry in ordered:
            if not _is_plain(entry) and left_out(entry.path):
                continue
            found = _stat(entry, left_out, unseen)
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


def _is_plain(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:  # some file systems do not say without being asked for more
        return False


def _stat(
    entry: os.DirEntry[str], left_out: Callable[[str], bool], unseen: Callable[[str], None]
) -> os.stat_result | None:
    """None for what was removed since the folder was read, and for a link that leads nowhere."""
    try:
        with explained(entry.path):
            return entry.stat()
    except StorageError as exc:
        if entry.is_symlink():
            unseen(entry.path)
        elif not isinstance(exc.__cause__, FileNotFoundError) and not left_out(entry.path):
            raise
        return None


def _new_tree(link: str, trees: tuple[str, ...]) -> str | None:
    target = os.path.realpath(link)
    if any(f"{target}/".startswith(f"{tree}/") or f"{tree}/".startswith(f"{target}/") for tree in trees):
        logger.info("link to a folder that is listed anyway, not followed: %r", link)
        return None
    return target
