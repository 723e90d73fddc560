"""The stage spread over a cluster by Ray: an actor a core, chunk numbers in, finished data files out; and one a GPU.

Plain actors and not a Ray Data pipeline, whose executor, coordinator, statistics and location actors have nothing to do
here, since no data passes between stages. Measured on 4,000 photographs, mobilenetv3_small_100, two idle cores with
AVX-512, one run each: 22.4 s, 35.4 CPU-seconds and 322 pictures/s in the steady state, against 29.5 s, 46.8 and 299.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError

from labelmill import errors
from labelmill.cluster import Resources
from labelmill.errors import ClusterError, LabelmillError
from labelmill.label.chunk import Chunk
from labelmill.label.stage import ChunkLabeler, Stage
from labelmill.model.engines import Gpu, Outputs

__all__ = ["GpuProcess", "Worker", "Workers", "label_chunks", "plan_workers"]


@dataclass(frozen=True)
class Workers:
    """How many workers run, a core each, and how many GPUs they share: fixed when the job starts, from what the cluster
    has. A GPU has a process of its own, which takes a core where there are enough."""

    count: int
    gpus: int = 0
    cores_a_gpu: int = 0

    @property
    def cores(self) -> int:
        return self.count + self.gpus * self.cores_a_gpu

    def __str__(self) -> str:
        cores = f"{self.count} workers of 1 core"
        return f"{cores} and {self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else cores


def plan_workers(resources: Resources, engine: str, num_chunks: int) -> Workers:
    """One worker a core, no more than there is work; and the GPUs, where the engine can use them."""
    if resources.gpus and engine != "openvino":
        cores_a_gpu = 1 if resources.cpus > resources.gpus else 0
        count = max(1, resources.cpus - resources.gpus * cores_a_gpu)
        return Workers(min(count, num_chunks), min(resources.gpus, num_chunks), cores_a_gpu)
    return Workers(min(resources.cpus, num_chunks))


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
        return ChunkLabeler(self._stage, self._near_gpu() if self._gpus else None)

    def _near_gpu(self) -> _RemoteGpu:
        """One on this node, where there is one: the others are reached through the network."""
        gpus = [_RemoteGpu(gpu) for gpu in self._gpus]
        here = ray.get_runtime_context().get_node_id()
        near = [gpu for gpu in gpus if gpu.node == here] or gpus
        return near[self._number % len(near)]

    @ray.method(max_task_retries=-1)
    def ready(self) -> None:
        """Answers once the worker runs, for the first time or again."""

    def label(self, number: int) -> str | None:
        """JSON of a `Chunk`, or of the error that ends the run: Ray prints the traceback of one that is raised on the
        terminal. None where the process died that has the GPU; Ray starts it again."""
        try:
            return self._labeler.label(number).to_json()
        except LabelmillError as exc:
            return json.dumps({"error": type(exc).__name__, "message": str(exc)})
        except RayActorError:
            return None


class GpuProcess:
    """An actor that has a GPU, with the networks on it: a few workers' pictures at a time, so that some are decoded
    while the networks see others. Processes that share a GPU take turns on the whole of it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._lock = threading.Lock()
        self._loaded: Gpu | None = None

    def about(self) -> tuple[str, bool]:
        """On which node it runs, and whether it decodes; once the networks are loaded."""
        return str(ray.get_runtime_context().get_node_id()), self._gpu().decodes

    def forward(self, *pictures: Any) -> list[Outputs] | None:
        return self._gpu().forward(*pictures)

    def _gpu(self) -> Gpu:
        from labelmill.model.engines.torch_engine import TorchEngine, TorchOnGpu

        with self._lock:
            if self._loaded is None:
                engines = [TorchEngine(bundle, embeddings=self._stage.embeddings) for bundle in self._stage.bundles]
                self._loaded = TorchOnGpu(engines)
            return self._loaded


class _RemoteGpu:
    """A `GpuProcess`, as a worker sees it."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.node, self.decodes = self._asked(process.about.remote())

    def forward(
        self, jpegs: NDArray[np.uint8], sizes_bytes: Sequence[int], pixels_bhwc: Sequence[NDArray[np.uint8]]
    ) -> list[Outputs] | None:
        outputs: list[Outputs] | None = self._asked(self._process.forward.remote(jpegs, sizes_bytes, pixels_bhwc))
        return outputs

    def _asked(self, answer: Any) -> Any:
        try:
            return ray.get(answer)
        except RayTaskError as exc:
            if isinstance(exc.cause, LabelmillError):
                raise exc.cause from None
            raise


def _chunk(outcome: dict[str, Any]) -> Chunk:
    if "error" in outcome:
        kind: type[LabelmillError] = getattr(errors, outcome["error"])
        raise kind(outcome["message"])
    return Chunk.from_fields(outcome)
