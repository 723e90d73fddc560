"""Which version of an object's content this is: its etag, or size and date where a store has none."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from labelmill.errors import ChangedError

__all__ = ["check_unchanged", "is_version", "unquoted", "version_of"]

_STAMP = re.compile(r"\d{8}T\d{6}Z-\d+")


def unquoted(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def version_of(etag: str | None, size_bytes: int, modified_at: datetime) -> str:
    """The etag without its quotes; without one, the date to the second, which every answer tells, and the size."""
    return unquoted(etag or "") or f"{modified_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{size_bytes}"


def check_unchanged(uri: str, listed: str | None, etag: str | None, size_bytes: int, modified_at: datetime) -> None:
    """ChangedError: the object that is read now is another version than the one that was `listed`, if one was."""
    if listed is not None and not is_version(listed, etag, size_bytes, modified_at):
        now = version_of(etag, size_bytes, modified_at)
        raise ChangedError(f"{uri!r} was listed as {listed!r} and is {now!r} now: the next run lists it anew")


def is_version(listed: str, etag: str | None, size_bytes: int, modified_at: datetime) -> bool:
    """Whether an object that is read now is the version that was listed. One that is read without the etag with which
    it was listed is taken for it: nothing says otherwise, and the next listing tells."""
    if _STAMP.fullmatch(listed):
        return listed == version_of(None, size_bytes, modified_at)
    return unquoted(etag or "") in ("", listed)
