"""The stage spread over a cluster by Ray: an actor a core, chunk numbers in, finished data files out.

Plain actors and not a Ray Data pipeline, whose executor, coordinator, statistics and location actors have nothing to do
here, since no data passes between stages. Measured on 4,000 photographs, mobilenetv3_small_100, two idle cores with
AVX-512, one run each: 22.4 s, 35.4 CPU-seconds and 322 pictures/s in the steady state, against 29.5 s, 46.8 and 299.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from labelmill import errors
from labelmill.cluster import Resources
from labelmill.errors import ClusterError, LabelmillError
from labelmill.label.chunk import Chunk
from labelmill.label.stage import ChunkLabeler, Stage

__all__ = ["Worker", "Workers", "label_chunks", "plan_workers"]


class Workers:
    """How many workers run, and what each takes: fixed when the job starts, from what the cluster has."""

    def __init__(self, count: int, cpus: float, gpus: float) -> None:
        self.count, self.cpus, self.gpus = count, cpus, gpus

    def __str__(self) -> str:
        each = f"{self.gpus:g} GPU and {self.cpus:g} cores" if self.gpus else f"{self.cpus:g} core"
        return f"{self.count} workers of {each}"


def plan_workers(resources: Resources, engine: str, num_chunks: int) -> Workers:
    """One worker a GPU where there are any and the engine can use them, else one a core; no more than there is work."""
    if resources.gpus and engine != "openvino":
        return Workers(min(resources.gpus, num_chunks), max(1, resources.cpus // resources.gpus), 1)
    return Workers(min(resources.cpus, num_chunks), 1, 0)


def label_chunks(stage: Stage, workers: Workers) -> Iterator[Chunk]:
    """Yield each chunk of the to-do list as its data file is finished, in any order; nothing is committed here."""
    try:
        for outcome in _outcomes(stage, workers):
            yield _chunk(json.loads(outcome))
    except RayError as exc:
        raise ClusterError(
            f"the workers of this run ended: {str(exc).splitlines()[0]}. "
            "What was committed stays. Run the same command again to go on."
        ) from exc


def _outcomes(stage: Stage, workers: Workers) -> Iterator[str]:
    """Give every free worker a chunk. Whatever dies, Ray starts the worker again, elsewhere if need be; the chunk that
    it had goes to whoever is free first, for there may be no room left for that worker."""
    start = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus or None, max_restarts=-1)(Worker).remote
    shared = ray.put(stage)
    todo = deque(range(stage.todo.num_chunks))
    free: list[Any] = []
    asked: dict[Any, tuple[Any, int | None]] = {}  # each answer that is awaited: of which worker, for which chunk
    for _ in range(workers.count):
        worker = start(shared)
        asked[worker.ready.remote()] = worker, None
    while todo or any(chunk is not None for _, chunk in asked.values()):
        while todo and free:
            worker, chunk = free.pop(), todo.popleft()
            asked[worker.label.remote(chunk)] = worker, chunk
        [answer], _ = ray.wait(list(asked), num_returns=1)
        worker, done = asked.pop(answer)
        try:
            outcome = ray.get(answer)
        except RayActorError:
            if done is None:
                raise
            todo.appendleft(done)
            asked[worker.ready.remote()] = worker, None
            continue
        free.append(worker)
        if done is not None:
            yield outcome


class Worker:
    """An actor: loads the models with its first chunk, so that what goes wrong with them is an outcome as well."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @cached_property
    def _labeler(self) -> ChunkLabeler:
        return ChunkLabeler(self._stage)

    @ray.method(max_task_retries=-1)
    def ready(self) -> None:
        """Answers once the worker runs, for the first time or again."""

    def label(self, number: int) -> str:
        """JSON of a `Chunk`, or of the error that ends the run: Ray prints the traceback of one that is raised on the
        terminal."""
        try:
            return self._labeler.label(number).to_json()
        except LabelmillError as exc:
            return json.dumps({"error": type(exc).__name__, "message": str(exc)})


def _chunk(outcome: dict[str, Any]) -> Chunk:
    if "error" in outcome:
        kind: type[LabelmillError] = getattr(errors, outcome["error"])
        raise kind(outcome["message"])
    return Chunk.from_fields(outcome)
