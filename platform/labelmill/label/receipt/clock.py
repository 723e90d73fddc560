"""Where the wall-clock of a run goes: what each stage took, how fast pictures came, and what limits them now."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labelmill.label.work.chunk import Chunk

__all__ = ["COMMIT", "IDLE", "OTHER", "START_UP", "Clock", "NodeShare", "Pace"]

START_UP, OTHER, IDLE, COMMIT, FORWARD = "start-up", "other", "idle", "commit", "forward"
_RECENT_S = 30.0
_MAX_BUCKETS = 120


@dataclass(frozen=True)
class Pace:
    """How the run goes now: over the last half minute, or since the first picture."""

    pictures_per_s: float
    limited_by: str | None  # the stage that the workers spend most of their time in


@dataclass
class NodeShare:
    """What one node of the cluster labelled, and between which seconds of the run."""

    pictures: int
    from_s: float  # the start of its first chunk
    to_s: float  # the end of its last

    @property
    def pictures_per_s(self) -> float:
        return self.pictures / max(self.to_s - self.from_s, 1e-9)


class Clock:
    """Follows one run. `now` gives seconds that only grow."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started = now()
        self._begun: float | None = None  # when the first worker began its first chunk
        self._last = self._started
        self._num_workers = self.most_workers = 1
        self._num_gpus = 0
        self._at_work: tuple[float, int] | None = None  # how many workers there are since when
        self._worker_s = 0.0  # that they had since the first of them began
        self._chunks: list[tuple[float, int]] = []  # the first ones: when each arrived, and its pictures
        self._pictures = 0
        self._busy: defaultdict[str, float] = defaultdict(float)  # worker-seconds by stage
        self._recent: deque[tuple[float, Chunk]] = deque()
        self.nodes: dict[str, NodeShare] = {}
        self.startup_s: dict[str, float] = {}
        self.bucket_s = 1.0
        self.buckets: list[float] = []  # pictures finished in each bucket_s since the start

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step of the start-up."""
        started = self._now()
        try:
            yield
        finally:
            self.startup_s[name] = round(self.startup_s.get(name, 0.0) + self._now() - started, 3)

    def start_labelling(self, num_workers: int, num_gpus: int = 0) -> None:
        """The workers that were asked for; with GPUs, these fetch, and the GPUs alone have the stage `forward`."""
        self._num_workers = self.most_workers = max(1, num_workers)
        self._num_gpus = num_gpus

    def at_work(self, num_workers: int) -> None:
        """How many workers there are now: a cluster grows and shrinks. To be said again and again."""
        now = self._now()
        if self._at_work and self._begun is not None:
            since, number = self._at_work
            self._worker_s += number * (now - max(since, self._begun))
        self._at_work = now, num_workers
        self.most_workers = max(self.most_workers, num_workers)

    def add(self, chunk: Chunk) -> None:
        """A chunk has come back from its worker."""
        now = self._now()
        begun = now - chunk.busy_s
        self._begun = begun if self._begun is None else min(self._begun, begun)
        self._last = now
        self._pictures += chunk.num_rows
        if len(self._chunks) < self._num_workers:
            self._chunks.append((now, chunk.num_rows))
        for name, seconds in chunk.seconds.items():
            self._busy[name] += seconds
        self._busy[OTHER] += max(0.0, chunk.busy_s - sum(chunk.seconds.values()))
        self._recent.append((now, chunk))
        self._spread(begun - self._started, now - self._started, chunk.num_rows)
        node = self.nodes.setdefault(chunk.node, NodeShare(0, begun - self._started, 0.0))
        node.pictures += chunk.num_rows
        node.from_s, node.to_s = min(node.from_s, begun - self._started), now - self._started

    @property
    def elapsed_s(self) -> float:
        return self._now() - self._started

    def pace(self) -> Pace | None:
        """None before the first pictures have come back."""
        if self._begun is None:
            return None
        now = self._now()
        since = max(self._begun, now - _RECENT_S)
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        pictures = sum(chunk.num_rows for _, chunk in self._recent)
        if not pictures:
            return Pace(self._pictures / (now - self._begun), None)
        stages: defaultdict[str, float] = defaultdict(float)
        for _, chunk in self._recent:
            for name, seconds in chunk.seconds.items():
                stages[name] += seconds
        return Pace(pictures / max(now - since, 1e-3), max(stages, key=lambda name: stages[name], default=None))

    def steady_pictures_per_s(self) -> float | None:
        """The rate once every worker is at it, until the last chunk; None when the run was too short to tell.

        It starts when as many chunks have come as there are workers, and counts what came after: the first ones took
        part of their time before.
        """
        first, pictures = self._chunks[-1][0] if self._chunks else 0.0, sum(count for _, count in self._chunks)
        rest = self._pictures - pictures
        if rest < pictures or self._last <= first:
            return None
        return rest / (self._last - first)

    def wall_by_stage_s(self) -> dict[str, float]:
        """The wall-clock until now, cut into stages that add up to it.

        Start-up is all that came before the first worker began, commit all that came after the last chunk. Between
        the two a stage's share is its mean over the workers, and idle is when a worker had none: it still started, or
        waited for Ray, or there was no work left for it. Where GPUs are at work beside them, what these take comes
        first, and the workers' stages have what is left.
        """
        end = self._now()
        if self._begun is None:
            return {START_UP: end - self._started}
        labelling = self._last - self._begun
        on_gpus = {FORWARD: self._busy[FORWARD] / self._num_gpus} if self._num_gpus else {}
        each_s = max(self._worker_s / labelling if labelling else 0.0, 1.0) if self._worker_s else self._num_workers
        on_cores = {name: seconds / each_s for name, seconds in self._busy.items() if name not in on_gpus}
        stages = _fitted(on_gpus, labelling)
        stages |= _fitted(on_cores, labelling - sum(stages.values()))
        idle = labelling - sum(stages.values())
        return {START_UP: self._begun - self._started, **stages, IDLE: max(0.0, idle), COMMIT: end - self._last}

    def _spread(self, begun_s: float, ended_s: float, pictures: int) -> None:
        """Add a chunk's pictures to the buckets over which it was worked on. There are never more than 120."""
        while ended_s >= self.bucket_s * _MAX_BUCKETS:
            self.bucket_s *= 2
            pairs = [self.buckets[at : at + 2] for at in range(0, len(self.buckets), 2)]
            self.buckets = [sum(pair) for pair in pairs]
        first, last = int(max(0.0, begun_s) / self.bucket_s), int(ended_s / self.bucket_s)
        self.buckets += [0.0] * (last + 1 - len(self.buckets))
        length = max(ended_s - begun_s, 1e-9)
        for bucket in range(first, last + 1):
            inside = min(ended_s, (bucket + 1) * self.bucket_s) - max(begun_s, bucket * self.bucket_s)
            self.buckets[bucket] += pictures * (max(0.0, inside) / length if first < last else 1.0)


def _fitted(means: dict[str, float], length_s: float) -> dict[str, float]:
    """Scaled down, where a worker that was replaced was counted while its heir worked already."""
    scale = min(1.0, length_s / max(sum(means.values()), 1e-9))
    return {name: seconds * scale for name, seconds in means.items()}
