"""The stage spread over a cluster by Ray: an actor a core, chunk numbers in, finished data files out; and one a GPU.

Plain actors and not a Ray Data pipeline, whose executor, coordinator, statistics and location actors have nothing to do
here, since no data passes between stages. Measured on 4,000 photographs, mobilenetv3_small_100, two idle cores with
AVX-512, one run each: 22.4 s, 35.4 CPU-seconds and 322 pictures/s in the steady state, against 29.5 s, 46.8 and 299.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from labelmill import errors
from labelmill.errors import ClusterError, LabelmillError
from labelmill.label.work.chunk import Chunk
from labelmill.label.work.gpu_process import GpuProcess, RemoteGpu
from labelmill.label.work.stage import ChunkLabeler, Stage
from labelmill.label.work.workers import Workers

__all__ = ["Worker", "label_chunks"]


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


_AT_ONE_GPU = 4  # pictures of so many workers are on it, or on their way


def _outcomes(stage: Stage, workers: Workers) -> Iterator[str]:
    """Give every free worker a chunk. Whatever dies, Ray starts the worker again, elsewhere if need be; the chunk that
    it had goes to whoever is free first, for there may be no room left for that worker."""
    start = ray.remote(num_cpus=1, max_restarts=-1)(Worker).remote
    start_gpu = ray.remote(num_cpus=workers.cores_a_gpu, num_gpus=1, max_restarts=-1, max_concurrency=_AT_ONE_GPU)(
        GpuProcess
    ).remote
    shared = ray.put(stage)
    gpus = [start_gpu(shared) for _ in range(workers.gpus)]
    todo = deque(range(stage.todo.num_chunks))
    free: list[Any] = []
    asked: dict[Any, tuple[Any, int | None]] = {}  # each answer that is awaited: of which worker, for which chunk
    for number in range(workers.count):
        worker = start(shared, gpus, number)
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
        if done is not None and outcome is None:
            todo.appendleft(done)
        elif done is not None:
            yield outcome


class Worker:
    """An actor: loads the models with its first chunk, so that what goes wrong with them is an outcome as well."""

    def __init__(self, stage: Stage, gpus: Sequence[Any], number: int) -> None:
        self._stage, self._gpus, self._number = stage, gpus, number

    @cached_property
    def _labeler(self) -> ChunkLabeler:
        return ChunkLabeler(self._stage, self._gpu)

    @cached_property
    def _gpu(self) -> RemoteGpu | None:
        return RemoteGpu(self._gpus, self._number) if self._gpus else None

    @ray.method(max_task_retries=-1)
    def ready(self) -> None:
        """Answers once the worker runs, for the first time or again."""

    def label(self, number: int) -> str | None:
        """JSON of a `Chunk`, or of the error that ends the run: Ray prints the traceback of one that is raised on the
        terminal. None where the process died that has the GPU, once there is one again."""
        try:
            try:
                return self._labeler.label(number).to_json()
            except RayActorError:
                assert self._gpu is not None  # no other actor is asked here
                self._gpu.choose()
                return None
        except LabelmillError as exc:
            return json.dumps({"error": type(exc).__name__, "message": str(exc)})


def _chunk(outcome: dict[str, Any]) -> Chunk:
    if "error" in outcome:
        kind: type[LabelmillError] = getattr(errors, outcome["error"])
        raise kind(outcome["message"])
    return Chunk.from_fields(outcome)
