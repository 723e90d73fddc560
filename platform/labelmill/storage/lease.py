"""One run at a time on a table: a lease with a heartbeat, kept beside the table where every node can read it.

A lease is an immutable numbered object, `lease/000017.json`, that names its holder; the highest number holds. It is
claimed by writing the next number only if absent, the one conditional write that all good stores agree on. The holder
alone rewrites `lease/000017.beat`. A newcomer judges by whether the beat moves while it watches, never by comparing
two machines' clocks. Behind the lease stands the fence in the table's own log: see `LabelTable`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from labelmill.errors import FencedError, NotFoundError, StorageError, TableBusyError
from labelmill.storage import Store
from labelmill.storage.holder import Holder, this_process
from labelmill.storage.numbered import numbered_keys

__all__ = ["BEAT_S", "LEASE_S", "Lease", "hold_lease"]

logger = logging.getLogger(__name__)

BEAT_S = 5.0
LEASE_S = 15.0
_LOOK_S = 1.0
_RELEASED = "released"


class Lease:
    """A held lease. `check` raises FencedError once another run took it."""

    def __init__(self, store: Store, number: int) -> None:
        self._store, self._number = store, number
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def check(self) -> None:
        """Also asks the store: a process that was stopped for an hour goes on before its next heartbeat."""
        if self._lost.is_set() or _newest(self._store) != self._number:
            self._lost.set()
            raise FencedError(
                "another run took over the lease of this table. What this run committed stays; nothing more of it will "
                "be. Run the same command again when the other has ended."
            )

    def _start(self) -> None:
        self._beat("0")
        self._thread.start()

    def _keep(self) -> None:
        for count in range(1, 2**62):
            if self._stop.wait(BEAT_S):
                return
            try:
                if _newest(self._store) != self._number:
                    self._lost.set()
                    return
                self._beat(str(count))
            except StorageError as exc:
                # The store may be back for the next beat; if it is not, the fence in the table's log still holds.
                logger.warning("heartbeat of the table's lease was not written: %s", exc)

    def _beat(self, count: str) -> None:
        self._store.write(_beat_key(self._number), count.encode())

    def _release(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=LEASE_S)
        if not self._lost.is_set():
            self._beat(_RELEASED)
            for number in range(max(1, self._number - 8), self._number):
                self._store.delete(_claim_key(number))
                self._store.delete(_beat_key(number))


@contextmanager
def hold_lease(store: Store, job: str) -> Iterator[Lease]:
    """Hold the table's lease for the time of the block. `store` is the table's `_labelmill` folder.

    TableBusyError: another run holds it, and lives. A holder on this machine whose process is gone is replaced at
    once; one of which that cannot be told is replaced when its beat stood still for LEASE_S seconds.
    """
    number = _newest(store)
    if number:
        _wait_until_free(store, number)
    if not store.write_if_absent(_claim_key(number + 1), this_process(job).to_json()):
        raise TableBusyError(
            f"another run took the lease of {store.uri} at this very moment. Run again when it has ended."
        )
    lease = Lease(store, number + 1)
    try:
        lease._start()
        yield lease
    finally:
        try:
            lease._release()
        except StorageError as exc:
            logger.warning("the lease of %s was not given back, another machine will wait for it: %s", store.uri, exc)


def _wait_until_free(store: Store, number: int) -> None:
    beat = _read_beat(store, number)
    if beat == _RELEASED:
        return
    holder = _read_holder(store, number)
    alive = holder.is_alive() if holder else None
    if alive:
        raise _busy(store, holder)
    if alive is False:
        logger.info("taking over from %s, which is gone", holder)
        return
    by = holder or "another run"
    logger.info("the lease is held by %s: waiting up to %.0f s to see whether it still lives", by, LEASE_S)
    for _ in range(math.ceil(LEASE_S / _LOOK_S)):  # so many looks: a newcomer may itself be stopped for a while
        time.sleep(_LOOK_S)
        now = _read_beat(store, number)
        if now == _RELEASED:
            return
        if now != beat:
            raise _busy(store, holder)
    logger.info("taking over from %s, which gave no sign of life for %.0f s", by, LEASE_S)


def _busy(store: Store, holder: Holder | None) -> TableBusyError:
    return TableBusyError(
        f"the table of {store.uri} is being written by {holder or 'another run'}. "
        "One run at a time: wait for it, or stop it and run this command again."
    )


def _newest(store: Store) -> int:
    return max(numbered_keys(store, "lease"), default=0)


def _read_holder(store: Store, number: int) -> Holder | None:
    try:
        return Holder.from_json(store.read(_claim_key(number)))
    except (NotFoundError, ValueError):
        return None  # released and swept, or written by another version: then only its beat can tell


def _read_beat(store: Store, number: int) -> str:
    try:
        return store.read(_beat_key(number)).decode(errors="replace")
    except NotFoundError:
        return ""


def _claim_key(number: int) -> str:
    return f"lease/{number:06d}.json"


def _beat_key(number: int) -> str:
    return f"lease/{number:06d}.beat"
