"""One run at a time on a table, or of a training: a lease with a heartbeat, kept where every node can read it.

A lease is an immutable numbered object, `lease/000017.json`, that names its holder; the highest number holds. It is
claimed by writing the next number only if absent, the one conditional write that all good stores agree on. The holder
alone rewrites `lease/000017.beat`. A newcomer judges by whether the beat moves while it watches, never by comparing
two machines' clocks. Behind the lease of a table stands the fence in the table's own log: see `LabelTable`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labelmill.errors import BusyError, FencedError, NotFoundError, StorageError
from labelmill.storage import Store, open_store
from labelmill.storage.holder import Holder, this_process
from labelmill.storage.numbered import numbered_keys

__all__ = ["BEAT_S", "LEASE_FOLDER", "LEASE_S", "Fence", "Lease", "hold_lease"]

logger = logging.getLogger(__name__)

BEAT_S = 5.0
LEASE_S = 15.0
_LOOK_S = 1.0
LEASE_FOLDER = "lease"
_RELEASED = "released"


@dataclass(frozen=True)
class Fence:
    """What the holder of a lease gives to its workers: which lease it is, and of what."""

    uri: str
    number: int
    of: str

    def check(self) -> None:
        """FencedError once another run took the lease."""
        if _newest(open_store(self.uri)) != self.number:
            raise FencedError(
                f"another run took over the lease of this {self.of}. What this run committed stays; nothing more of it "
                "will be. Run the same command again when the other has ended."
            )


class Lease:
    """A held lease. `check` raises FencedError once another run took it."""

    def __init__(self, store: Store, number: int, of: str) -> None:
        self._store, self._number = store, number
        self.fence = Fence(store.uri, number, of)
        self._is_over = False
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def check(self) -> None:
        """Also asks the store: a process that was stopped for an hour goes on before its next heartbeat."""
        try:
            self.fence.check()
        except FencedError:
            self._lost.set()
            raise

    def dissolve(self) -> None:
        """There is nothing any more that it is the lease of: its rows go with it."""
        self._is_over = True

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
                # The store may be back for the next beat; if it is not, the fence still holds.
                logger.warning("heartbeat of the lease of this %s was not written: %s", self.fence.of, exc)

    def _beat(self, count: str) -> None:
        self._store.write(_beat_key(self._number), count.encode())

    def _release(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=LEASE_S)
        if not self._lost.is_set():
            self._beat(_RELEASED)
            for number in range(max(1, self._number - 8), self._number + self._is_over):
                self._store.delete(_claim_key(number))
                self._store.delete(_beat_key(number))


@contextmanager
def hold_lease(store: Store, job: str, *, of: str = "table") -> Iterator[Lease]:
    """Hold the lease of a table, or of what else `of` says, for the time of the block. `store` is the folder in which
    it lies, such as the table's `_labelmill`.

    BusyError: another run holds it, and lives. A holder on this machine whose process is gone is replaced at once; one
    of which that cannot be told is replaced when its beat stood still for LEASE_S seconds.
    """
    number = _newest(store)
    if number:
        _wait_until_free(store, number, of)
    if not store.write_if_absent(_claim_key(number + 1), this_process(job).to_json()):
        raise BusyError(f"another run took the lease of {store.uri} at this very moment. Run again when it has ended.")
    lease = Lease(store, number + 1, of)
    try:
        lease._start()
        yield lease
    finally:
        try:
            lease._release()
        except StorageError as exc:
            logger.warning("the lease of %s was not given back, another machine will wait for it: %s", store.uri, exc)


def _wait_until_free(store: Store, number: int, of: str) -> None:
    beat = _read_beat(store, number)
    if beat == _RELEASED:
        return
    holder = _read_holder(store, number)
    alive = holder.is_alive() if holder else None
    if alive:
        raise _busy(store, holder, of)
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
            raise _busy(store, holder, of)
    logger.info("taking over from %s, which gave no sign of life for %.0f s", by, LEASE_S)


def _busy(store: Store, holder: Holder | None, of: str) -> BusyError:
    return BusyError(
        f"the {of} of {store.uri} is being written by {holder or 'another run'}. "
        "One run at a time: wait for it, or stop it and run this command again."
    )


def _newest(store: Store) -> int:
    return max(numbered_keys(store, LEASE_FOLDER), default=0)


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
    return f"{LEASE_FOLDER}/{number:06d}.json"


def _beat_key(number: int) -> str:
    return f"{LEASE_FOLDER}/{number:06d}.beat"
