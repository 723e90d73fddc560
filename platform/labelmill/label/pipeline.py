"""The stage spread over a cluster by Ray Data: one worker a core, chunk numbers in, finished data files out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError, RayTaskError

from labelmill import errors
from labelmill.cluster import Resources
from labelmill.errors import ClusterError, LabelmillError
from labelmill.label.chunk import Chunk
from labelmill.label.stage import ChunkLabeler, Stage

__all__ = ["Workers", "label_chunks", "plan_workers"]


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
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Ray would read each worker's memory map every second, which takes a tenth of the worker's time.
    ray.data.DataContext.get_current().memory_usage_poll_interval_s = None
    # One block a chunk: a block is what Ray hands to a worker, and repeats when the worker dies.
    numbers = [pa.table({"chunk": [number]}) for number in range(stage.todo.num_chunks)]
    chunks = ray.data.from_arrow(numbers).map_batches(
        ChunkLabeler,
        batch_size=1,
        fn_constructor_kwargs={"stage": stage},
        compute=ActorPoolStrategy(size=workers.count),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    try:
        for batch in chunks.iter_batches(batch_size=None, batch_format="pyarrow"):
            for text in batch["chunk"].to_pylist():
                yield _chunk(json.loads(text))
    except RayTaskError as exc:
        cause = exc.cause if isinstance(exc, RayTaskError) else None
        if isinstance(cause, LabelmillError):
            raise cause from exc
        raise
    except RayError as exc:
        raise ClusterError(
            f"the workers of this run ended: {str(exc).splitlines()[0]}. "
            "What was committed stays. Run the same command again to go on."
        ) from exc


def _chunk(outcome: dict[str, Any]) -> Chunk:
    if "error" in outcome:
        kind: type[LabelmillError] = getattr(errors, outcome["error"])
        raise kind(outcome["message"])
    return Chunk.from_fields(outcome)
