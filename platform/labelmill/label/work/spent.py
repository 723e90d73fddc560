"""What a worker's process spends, told piece by piece: nothing is told twice, and nothing is left out."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from labelmill.storage import Traffic, num_retries, traffic

__all__ = ["Spent", "newly_spent"]


@dataclass(frozen=True)
class Spent:
    """Since this was last asked, or since the process began. `worker` names it: host:process id."""

    worker: str
    cpu_s: float
    peak_rss_bytes: int  # of the process's whole life
    retries: int  # requests to the store that had to be sent again
    traffic: Traffic

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Spent:
        """From `dataclasses.asdict` of one."""
        return cls(**{**fields, "traffic": Traffic(**fields["traffic"])})


class _Meter:
    def __init__(self) -> None:
        self._lock, self._told = threading.Lock(), (0.0, 0, Traffic())

    def read(self) -> Spent:
        with self._lock:
            cpu_s, retries, asked = now = (time.process_time(), num_retries(), traffic())
            before_s, before, asked_before = self._told
            self._told = now
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        worker = f"{socket.gethostname()}:{os.getpid()}"
        return Spent(worker, cpu_s - before_s, peak, retries - before, asked - asked_before)


_METER = _Meter()  # of the process: tasks of several steps may run in one, and threads of one step


def newly_spent() -> Spent:
    """Of this process, since it was last asked. What came before the first time counts: imports, loading of models."""
    return _METER.read()
