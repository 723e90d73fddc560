"""What the operating system's refusals mean."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from labelmill.errors import ForbiddenError, NotFoundError, StorageError, UnavailableError

__all__ = ["explained"]

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


@contextmanager
def explained(path: str) -> Iterator[None]:
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
