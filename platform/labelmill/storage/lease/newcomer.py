"""What a newcomer does before it takes a lease: it waits for a holder that may be gone, or has one that lives end."""

from __future__ import annotations

import logging
import time

from labelmill.errors import BusyError
from labelmill.storage.lease.holder import Holder
from labelmill.storage.lease.rows import RELEASED, Row

__all__ = ["LEASE_S", "wait_until_free"]

logger = logging.getLogger(__name__)

LEASE_S = 15.0
GIVES_WAY_S = 120.0  # in which a run commits what it has and ends its Ray
_LOOK_S = 1.0


def wait_until_free(row: Row, of: str, replaced_by: Holder | None) -> None:
    """Return when the lease may be taken. BusyError: its holder lives, and is not to be replaced, or did not end."""
    beat, holder = row.beat(), row.holder()
    alive = holder.is_alive() if holder else None
    if beat == RELEASED:
        return
    if alive is False:
        logger.info("taking over from %s, which is gone", holder)
        return
    if alive and replaced_by is None:
        raise busy(row, holder, of)
    by = holder or "another run"
    if replaced_by is not None:
        logger.info("asking %s to give way, for up to %.0f s (overlap: replace)", by, GIVES_WAY_S)
        row.ask_to_stop(replaced_by)
    else:
        logger.info("the lease is held by %s: waiting up to %.0f s to see whether it still lives", by, LEASE_S)
    _watch(row, holder, beat, of, gives_way=replaced_by is not None)


def _watch(row: Row, holder: Holder | None, beat: str, of: str, *, gives_way: bool) -> None:
    by, silent_s, looks = holder or "another run", 0.0, 0
    while silent_s < LEASE_S:  # so many looks: a newcomer may itself be stopped for a while
        time.sleep(_LOOK_S)
        looks, silent_s, now = looks + 1, silent_s + _LOOK_S, row.beat()
        if now == RELEASED or (gives_way and holder and holder.is_alive() is False):
            return
        if now != beat:
            if not gives_way:
                raise busy(row, holder, of)
            beat, silent_s = now, 0.0
        if looks * _LOOK_S >= GIVES_WAY_S:
            raise BusyError(
                f"the {of} of {row.store.uri} is still being written by {by}, {GIVES_WAY_S:.0f} s after it was asked "
                "to give way (overlap: replace): it is stuck, or of a version that does not know this. Wait for it, or "
                "stop it, and run this command again."
            )
    logger.info("taking over from %s, which gave no sign of life for %.0f s", by, LEASE_S)


def busy(row: Row, holder: Holder | None, of: str) -> BusyError:
    return BusyError(
        f"the {of} of {row.store.uri} is being written by {holder or 'another run'}. "
        "One run at a time: wait for it, or stop it and run this command again."
    )
