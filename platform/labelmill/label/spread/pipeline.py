"""The work spread over a cluster by Ray Data: chunk numbers in, finished data files out.

On CPUs one pool of actors, a core each, takes a chunk from its bytes to its file. With GPUs there are three operators:
tasks fetch, actors with a GPU show the pictures to the networks, tasks write. Ray Data starts the actors, hands out the
chunks, bounds what waits for a GPU, and grows the pools with the cluster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from labelmill import errors
from labelmill.errors import LabelmillError, NodeError
from labelmill.label.spread.execution import Execution
from labelmill.label.spread.workers import Workers
from labelmill.label.work.chunk import Chunk
from labelmill.label.work.cores import ChunkLabeler
from labelmill.label.work.gpus import Fetcher, Networks, Writer
from labelmill.label.work.handover import ANSWERED, FETCHED, one_row
from labelmill.label.work.stage import Stage
from labelmill.storage import limit_requests, part_of_worker

__all__ = ["Pipeline", "Refused"]

_BLOCKS = 10_000  # the driver keeps a reference to each: chunks beyond that number share them
_AT_ONE_GPU = 2  # chunks, of which one's pictures are unpacked while the networks see the other's
_QUEUED_AT_ONE_GPU = 6  # with those; Ray Data hands out ten times a second, and small chunks take a GPU less than that
_WRITES_A_GPU = 4  # at once, ten times a second each: more would only start more processes
_PAUSE_S = 2.0  # of a node that gives a chunk back, or it would be through with all of them before others label one


@dataclass(frozen=True)
class Refused:
    """A chunk that a node gave back, since it reaches nothing that the job names. `certain`: it is not the pictures."""

    chunk: int
    node: str  # its id
    address: str
    step_on: str  # what the step takes that could not be done there: "CPU" or "GPU"
    reason: str
    certain: bool


class Pipeline:
    """Labels some chunks of the to-do list. Nothing is committed here.

    All that it asks of Ray it asks in the thread that takes the outcomes: a signal is raised in the main thread, and in
    the midst of Ray's code may leave a lock of it taken for ever.

    `avoid` has ids of nodes, by what a step takes ("CPU", "GPU") that is not to be done there.
    `alone`: this Ray has one machine, and no other job is or comes on it.
    """

    def __init__(
        self,
        stage: Stage,
        workers: Workers,
        chunks: Sequence[int],
        *,
        name: str,
        alone: bool,
        avoid: Mapping[str, Iterable[str]],
    ) -> None:
        build = _over_gpus if workers.gpus else _on_cores
        nodes = [_but(avoid.get(step_on, ())) for step_on in ("CPU", "GPU")]
        if avoid:
            workers = replace(workers, cores_a_gpu=0)  # which may be the only one that is not avoided
        self._execution = Execution(partial(build, stage, workers, chunks, *nodes), name, alone=alone)

    def outcomes(self) -> Iterator[Chunk | Refused]:
        """Each chunk as its data file is finished, in any order. What ended a worker's work is raised."""
        for table in self._execution.tables():
            for outcome in table["outcome"].to_pylist():
                yield _read(json.loads(outcome))

    def stop(self) -> bool:
        """End the work, from any thread: `outcomes` then comes to its end. False: it never does, Ray is gone."""
        return self._execution.stop()

    @property
    def num_actors(self) -> int:
        """How many actors work now."""
        return self._execution.num_actors

    @property
    def operators(self) -> dict[str, dict[str, float]]:
        """What each operator did, once the work is over."""
        return self._execution.operators


def _but(nodes: Iterable[str]) -> dict[str, Any]:
    """Ray's arguments that keep an operator away from these."""
    names = ",".join(nodes)
    return {"label_selector": {"ray.io/node-id": f"!in({names})"}} if names else {}


def _on_cores(
    stage: Stage, workers: Workers, chunks: Sequence[int], nodes: dict[str, Any], _: dict[str, Any]
) -> Dataset:
    """An actor a core, and never more than there are chunks."""
    numbers = ray.data.from_items([{"chunk": chunk} for chunk in chunks], override_num_blocks=min(len(chunks), _BLOCKS))
    numbers.context.target_max_block_size = 1  # of several chunks in a block each is handed on as it is finished
    numbers.context.set_config("backpressure_policies.enabled", [])  # a result has a few hundred bytes
    return numbers.map_batches(
        LabelOnCore,
        fn_constructor_args=(stage,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=len(chunks),
            initial_size=workers.count,
            enable_true_multi_threading=True,  # in the actor's main thread, that is, and still one at a time
        ),
        num_cpus=1,
        **nodes,
    )


def _over_gpus(
    stage: Stage, workers: Workers, chunks: Sequence[int], nodes: dict[str, Any], gpu_nodes: dict[str, Any]
) -> Dataset:
    """A chunk is a row, which cannot be cut, nor gathered with others."""
    numbers = ray.data.from_items([{"chunk": chunk} for chunk in chunks], override_num_blocks=len(chunks))
    numbers.context.autoscaling_config.actor_pool_util_upscaling_threshold = 0.9  # the pool grows when all are at work
    whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
    fetched = numbers.map_batches(fetch, fn_args=(stage,), num_cpus=1, **whole, **nodes)
    shown = fetched.map_batches(
        ShowToNetworks,
        fn_constructor_args=(stage,),
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=len(chunks),
            initial_size=workers.gpus,
            max_tasks_in_flight_per_actor=_QUEUED_AT_ONE_GPU,
            max_concurrent_calls_per_actor=_AT_ONE_GPU,
            enable_true_multi_threading=True,
        ),
        num_gpus=1,
        num_cpus=workers.cores_a_gpu,
        **(whole | {"batch_size": 1}),
        **gpu_nodes,
    )
    # Next to nothing to do, and no core to wait for: where all are fetching, a write that wanted one would come last.
    at_once = TaskPoolStrategy(_WRITES_A_GPU * workers.gpus)
    return shown.map_batches(write, fn_args=(stage,), num_cpus=0, compute=at_once, **whole, **nodes)


class LabelOnCore:
    """The one operator on CPUs. Models are loaded with the first chunk, so that what goes wrong with them is an outcome
    too: an actor that cannot begin would end the run without a word of ours."""

    def __init__(self, stage: Stage) -> None:
        _spare_the_store(stage)
        self._labeler = ChunkLabeler(stage)

    def __call__(self, chunks: pa.Table) -> Iterator[pa.Table]:
        for number in chunks["chunk"].to_pylist():
            yield pa.table({"outcome": [_outcome(number, partial(self._labeler.label, number))]})


def fetch(chunks: pa.Table, stage: Stage) -> Iterator[pa.Table]:
    """The first operator over GPUs, as tasks: the process keeps what it has opened."""
    fetcher = _kept(Fetcher, stage)
    for number in chunks["chunk"].to_pylist():
        found = _outcome(number, partial(fetcher.fetch, number))
        yield found if isinstance(found, pa.Table) else one_row(FETCHED, outcome=found)


class ShowToNetworks:
    """The second: an actor that has a GPU."""

    def __init__(self, stage: Stage) -> None:
        _spare_the_store(stage)
        self._networks = Networks(stage)

    def __call__(self, fetched: pa.Table) -> pa.Table:
        if (outcome := fetched["outcome"][0].as_py()) is None:
            outcome = _outcome(fetched["chunk"][0].as_py(), partial(self._networks.show, fetched), step_on="GPU")
        return outcome if isinstance(outcome, pa.Table) else one_row(ANSWERED, outcome=outcome)


def write(answered: pa.Table, stage: Stage) -> pa.Table:
    """The third, as tasks."""
    if (outcome := answered["outcome"][0].as_py()) is None:
        outcome = _outcome(answered["chunk"][0].as_py(), partial(_kept(Writer, stage).write, answered))
    return pa.table({"outcome": [outcome]})


_KEPT: dict[tuple[str, str, bool], Any] = {}


def _kept(kind: type[Any], stage: Stage) -> Any:
    """What tasks of a run share in one process, as long as they are told the same of their node."""
    key = kind.__name__, stage.run_id, stage.doubts_its_node
    if key not in _KEPT:
        _spare_the_store(stage)
        _KEPT[key] = kind(stage)
    return _KEPT[key]


def _spare_the_store(stage: Stage) -> None:
    """This process sends no more than its share of the requests that the run may. There is a process for each core and
    GPU that the cluster has at the moment, and none without a chunk: a node that joins is counted before it works."""
    whole = stage.max_requests_per_s
    if whole is None:
        limit_requests(None)
        return

    def share() -> float:
        there = ray.cluster_resources()
        at_work = min(there.get("CPU", 1.0), stage.todo.num_chunks) + there.get("GPU", 0.0)
        return part_of_worker(whole, at_work)

    limit_requests(share)


def _outcome(number: int, work: Callable[[], Chunk | pa.Table], step_on: str = "CPU") -> str | pa.Table:
    """A row for the next step, or JSON of what became of the chunk: Ray would print the traceback of an error that is
    raised."""
    node, address = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
    try:
        found = work()
    except NodeError as exc:
        time.sleep(_PAUSE_S)
        refused = Refused(number, node, address, step_on, str(exc), exc.certain)
        return json.dumps({"refused": asdict(refused)})
    except LabelmillError as exc:
        return json.dumps({"error": type(exc).__name__, "message": str(exc)})
    if isinstance(found, Chunk):
        found.node = f"{address} {node[:8]}"
        return found.to_json()
    return found


def _read(outcome: dict[str, Any]) -> Chunk | Refused:
    if "error" in outcome:
        kind: type[LabelmillError] = getattr(errors, str(outcome["error"]))
        raise kind(outcome["message"])
    return Refused(**outcome["refused"]) if "refused" in outcome else Chunk.from_fields(outcome)
