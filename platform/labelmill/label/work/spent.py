"""What a worker's process spends, told piece by piece: nothing is told twice, and nothing is left out."""

from __future__ import annotations

import os
import resource
import socket
import time
from dataclasses import dataclass
from typing import Any

from labelmill.storage import Traffic, num_retries, traffic

__all__ = ["Meter", "Spent"]


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


class Meter:
    """One of each process. What it was before the first look counts: the imports, and the loading of models."""

    def __init__(self) -> None:
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._told = (0.0, 0, Traffic())

    def read(self) -> Spent:
        cpu_s, retries, asked = now = (time.process_time(), num_retries(), traffic())
        before_s, before, asked_before = self._told
        self._told = now
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Spent(self._worker, cpu_s - before_s, peak, retries - before, asked - asked_before)
