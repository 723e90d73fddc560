"""A held lease, and how it is taken and given back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from labelmill.ending import end_main_thread
from labelmill.errors import BusyError, FencedError, StorageError
from labelmill.storage import Store
from labelmill.storage.lease.holder import Holder, this_process
from labelmill.storage.lease.newcomer import LEASE_S, wait_until_free
from labelmill.storage.lease.rows import RELEASED, TOLD, Fence, Row, newest, rows

__all__ = ["Lease", "Tenure", "held_by", "hold_lease"]

logger = logging.getLogger(__name__)

BEAT_S = 5.0


@dataclass(frozen=True)
class Tenure:
    """A run that holds the lease, or held it and did not give it back: it was killed, or cut off from the store."""

    row: Row
    holder: Holder | None
    last_seen: datetime | None


class Lease:
    """A held lease. `check` raises FencedError once another run took it. `vanished` are the runs before it, oldest
    first, that did not give theirs back and of which nobody has been told."""

    def __init__(self, row: Row, of: str) -> None:
        self._row, self._before = row, [other for other in rows(row.store) if other.number < row.number]
        self.fence = Fence(row.store.uri, row.number, of)
        self._is_over = self._was_asked = False
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.vanished: list[Tenure] = []

    def check(self) -> None:
        """Also asks the store: a process that was stopped for an hour goes on before its next heartbeat."""
        try:
            self.fence.check()
        except FencedError:
            self._lost.set()
            raise

    def told(self, vanished: Tenure) -> None:
        """Somebody has been told of it: no later run tells of it again."""
        vanished.row.write_beat(TOLD)
        self.vanished.remove(vanished)

    def dissolve(self) -> None:
        """There is nothing any more that it is the lease of: its rows go with it."""
        self._is_over = True

    def start(self) -> None:
        self._row.write_beat("0")
        self._thread.start()
        self.vanished = [
            Tenure(row, row.holder(), row.last_seen()) for row in self._before if row.beat() not in (RELEASED, TOLD)
        ]

    def release(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=LEASE_S)
        if not self._lost.is_set():
            self._row.write_beat(RELEASED)
            untold = [one.row for one in self.vanished]
            for row in [row for row in self._before if row not in untold] + [self._row] * self._is_over:
                row.remove()

    def _keep(self) -> None:
        for count in range(1, 2**62):
            if self._stop.wait(BEAT_S):
                return
            try:
                is_ours, is_asked = self._row.look()
                if not is_ours:
                    self._lost.set()
                    return
                self._row.write_beat(str(count))
                if is_asked and not self._was_asked:
                    self._give_way()
            except StorageError as exc:
                # The store may be back for the next beat; if it is not, the fence still holds.
                logger.warning("heartbeat of the lease of this %s was not written: %s", self.fence.of, exc)

    def _give_way(self) -> None:
        """End the run as a signal does. Its heart beats on until it has given the lease back."""
        by, self._was_asked = self._row.asked_by(), True
        if not self._stop.is_set():
            end_main_thread(
                BusyError(
                    f"a newer run took the place of this one (overlap: replace): {by or 'another process'}. What this "
                    "run finished stays, and the newer one goes on from there."
                )
            )


@contextmanager
def hold_lease(store: Store, job: str, *, of: str = "table", replaces: bool = False) -> Iterator[Lease]:
    """Hold the lease of a table, or of what else `of` says, for the time of the block. `store` is the folder in which
    it lies, such as the table's `_labelmill`.

    BusyError: another run holds it, and lives. A holder on this machine whose process is gone is replaced at once; one
    of which that cannot be told is replaced when its beat stood still for LEASE_S seconds. With `replaces`, one that
    lives is asked to end, and waited for.
    """
    number, ours = newest(store), this_process(job)
    if number:
        wait_until_free(Row(store, number), of, ours if replaces else None)
    row = Row(store, number + 1)
    if not row.claim(ours):
        raise BusyError(f"another run took the lease of {store.uri} at this very moment. Run again when it has ended.")
    lease = Lease(row, of)
    try:
        lease.start()
        yield lease
    finally:
        try:
            lease.release()
        except StorageError as exc:
            logger.warning("the lease of %s was not given back, another machine will wait for it: %s", store.uri, exc)


def held_by(store: Store) -> Tenure | None:
    """Who holds the lease, as far as can be told without waiting; None where nobody does, or the process is gone."""
    row = Row(store, newest(store))
    if not row.number or row.beat() in (RELEASED, TOLD):
        return None
    holder = row.holder()
    return None if holder and holder.is_alive() is False else Tenure(row, holder, row.last_seen())
