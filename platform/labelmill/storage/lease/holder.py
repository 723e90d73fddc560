"""Who holds a lease, exactly enough to tell on the same machine whether that process still lives.

A process is known by its number and by when it began, in ticks since boot: a wall clock is set while processes run,
and the time that it gives for their beginning moves with it. Where the ticks cannot be read, which is on a system
without /proc and where it hides the processes of others, only the lease's heartbeat tells.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["Holder", "this_process"]

_ENDED = ""
_STATE, _START_TICKS = 0, 19  # of the fields of /proc/<pid>/stat behind the command, man 5 proc_pid_stat


@dataclass(frozen=True)
class Holder:
    """A process that holds a lease, and for which job. `began` is None where that could not be told, `since` is when it
    asked for the lease by its own clock (ISO 8601, UTC), for people to read."""

    host: str
    machine: str  # of the running kernel and its process namespace: two containers may share a host's name
    pid: int
    began: str | None
    job: str
    since: str | None = None

    def __str__(self) -> str:
        return f"job {self.job!r}, process {self.pid} on {self.host}"

    @classmethod
    def from_json(cls, data: bytes) -> Holder:
        """ValueError: that is none. Those of a version that knew a process by the wall clock have no `began`."""
        try:
            found = json.loads(data)
            began, since = found.get("began"), found.get("since")
            return cls(found["host"], found["machine"], int(found["pid"]), began, found["job"], since)
        except (AttributeError, KeyError, TypeError) as exc:
            raise ValueError(f"not the holder of a lease: {data[:100]!r}") from exc

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None: that cannot be told from here."""
        if self.machine != _machine():
            return None
        began = _began(self.pid)
        if began == _ENDED:
            return False
        return None if began is None or self.began is None else began == self.began


def this_process(job: str) -> Holder:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(socket.gethostname(), _machine(), os.getpid(), _began(os.getpid()), job, since)


def _began(pid: int) -> str | None:
    """When the process began, _ENDED where it does not run, None where neither can be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return _ENDED
    except PermissionError:
        pass  # it runs for another user
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return None
    # One that has ended is listed until its parent asks for it, which the first process of a container may never do.
    return _ENDED if fields[_STATE] in ("Z", "X") else fields[_START_TICKS]


def _machine() -> str:
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists():
        return f"{boot.read_text().strip()} {space.readlink()}"
    return f"{socket.gethostname()} {uuid.getnode():x} {os.getuid()}"
