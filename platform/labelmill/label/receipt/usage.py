"""What a run uses: the CPU-seconds and the peak memory of its processes, on this machine and on others."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

from labelmill.label.work.chunk import Chunk

__all__ = ["TreeUsage", "WorkersUsage"]

_FIRST_SAMPLE_S, _LAST_SAMPLE_S = 2.0, 15.0  # the kernel takes 5 ms for the memory of each process


class TreeUsage:
    """Samples this process and all below it. Memory is the sum of proportional set sizes: shared pages count once."""

    def __init__(self) -> None:
        self.peak_memory_bytes = 0
        self._cpu_s: dict[psutil.Process, float] = {}  # which psutil tells apart by a clock that nobody sets
        self._root = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)

    def __enter__(self) -> Self:
        self.sample()
        self._before_s = self.cpu_s
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def cpu_s(self) -> float:
        """CPU-seconds of every process seen, those that have ended included, as of their last sample."""
        return sum(list(self._cpu_s.values())) - getattr(self, "_before_s", 0.0)

    def sample(self) -> None:
        memory = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            self._cpu_s[process] = times.user + times.system
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)

    def _run(self) -> None:
        wait_s = _FIRST_SAMPLE_S
        while not self._stop.wait(wait_s):
            self.sample()
            wait_s = min(_LAST_SAMPLE_S, 1.2 * wait_s)


class WorkersUsage:
    """What workers on other machines used, where no sampling reaches them: as they say themselves with each chunk."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self._peaks: dict[str, int] = {}

    @property
    def peak_memory_bytes(self) -> int:
        """The sum of each worker's own peak: no less than what they held at any one moment."""
        return sum(self._peaks.values())

    def add(self, chunk: Chunk) -> None:
        for spent in chunk.spent:
            self.cpu_s += spent.cpu_s
            self._peaks[spent.worker] = max(self._peaks.get(spent.worker, 0), spent.peak_rss_bytes)
