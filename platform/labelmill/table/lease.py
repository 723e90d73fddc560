"""One run at a time on a table: a lease with a heartbeat, kept beside the table where every node can read it.

A lease is an immutable numbered object, `lease/000017.json`, that names its holder; the highest number holds. It is
claimed by writing the next number only if absent, the one conditional write that all good stores agree on. The holder
alone rewrites `lease/000017.beat`. A newcomer judges by whether the beat moves while it watches, never by comparing
two machines' clocks. Behind the lease stands the fence in the table's own log: see `LabelTable`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from labelmill.errors import FencedError, NotFoundError, StorageError, TableBusyError
from labelmill.storage import Store

__all__ = ["BEAT_S", "LEASE_S", "Lease", "hold_lease"]

logger = logging.getLogger(__name__)

BEAT_S = 5.0
LEASE_S = 15.0
_RELEASED = "released"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, exactly enough to tell on the same machine whether that process still lives."""

    host: str
    machine: str  # of the running kernel and its process namespace: two containers may share a host's name
    pid: int
    process_started_at: float
    job: str

    def __str__(self) -> str:
        return f"job {self.job!r}, process {self.pid} on {self.host}"

    def is_here(self) -> bool:
        return self.machine == _machine()

    def is_alive(self) -> bool:
        """Whether the process still runs; only meaningful where `is_here`."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.process_started_at) < 1
        except psutil.NoSuchProcess:
            return False


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
    once; one elsewhere is replaced when its beat stood still for LEASE_S seconds.
    """
    holder = Holder(socket.gethostname(), _machine(), os.getpid(), psutil.Process().create_time(), job)
    number = _newest(store)
    if number:
        _wait_until_free(store, number)
    claim = json.dumps(asdict(holder)).encode()
    if not store.write_if_absent(_claim_key(number + 1), claim):
        raise TableBusyError(
            f"another run took the lease of {store.uri} at this very moment. Run again when it has ended."
        )
    lease = Lease(store, number + 1)
    lease._start()
    try:
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
    if holder and holder.is_here():
        if holder.is_alive():
            raise _busy(store, holder)
        logger.info("taking over from %s, which is gone", holder)
        return
    logger.info("the lease is held by %s: waiting up to %.0f s to see whether it still lives", holder, LEASE_S)
    until = time.monotonic() + LEASE_S
    while time.monotonic() < until:
        time.sleep(1)
        now = _read_beat(store, number)
        if now == _RELEASED:
            return
        if now != beat:
            raise _busy(store, holder)
    logger.info("taking over from %s, which gave no sign of life for %.0f s", holder, LEASE_S)


def _busy(store: Store, holder: Holder | None) -> TableBusyError:
    return TableBusyError(
        f"the table of {store.uri} is being written by {holder or 'another run'}. "
        "One run at a time: wait for it, or stop it and run this command again."
    )


def _newest(store: Store) -> int:
    names = [key.rsplit("/", 1)[-1] for key in store.keys("lease/")]
    return max((int(name.removesuffix(".json")) for name in names if name.endswith(".json")), default=0)


def _read_holder(store: Store, number: int) -> Holder | None:
    try:
        return Holder(**json.loads(store.read(_claim_key(number))))
    except (NotFoundError, ValueError, TypeError):
        return None  # released and swept, or written by another version: then only its beat can tell


def _read_beat(store: Store, number: int) -> str:
    try:
        return store.read(_beat_key(number)).decode()
    except NotFoundError:
        return ""


def _claim_key(number: int) -> str:
    return f"lease/{number:06d}.json"


def _beat_key(number: int) -> str:
    return f"lease/{number:06d}.beat"


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return (
        f"{boot.read_text().strip()} {space.readlink()}" if boot.exists() else f"{socket.gethostname()} {os.getuid()}"
    )
