"""One execution of a Ray Data pipeline: how it is set, consumed, stopped, and what its operators did.

The one place that knows Ray Data from inside. What a label job needs of it and Ray Data does not offer in public is the
executor, which an execution callback is given: only through it can another thread than the one that waits for results
stop the work, and its operators' figures be read when it is over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pyarrow as pa
import ray.data._internal.planner.planner  # noqa: F401 - half a second that execution would take when all else is ready
from ray.data import Dataset
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from labelmill.cluster import is_lost, said_by_worker
from labelmill.errors import ClusterError
from labelmill.label.spread.alone import helpers_in_this_process
from labelmill.label.spread.sharing import share_cluster

__all__ = ["Execution"]

_POLL_S = 0.05
_FIGURES = (
    "num_tasks_submitted",
    "num_tasks_finished",
    "num_tasks_failed",
    "task_submission_backpressure_time",
    "task_output_backpressure_time",
    "obj_store_mem_used",
    "obj_store_mem_spilled",
    "num_restarting_actors",
)


class Execution(ExecutionCallback):
    """Runs a dataset once. `alone`: no other job is, or comes, on this Ray. `operators` are, when it is over, the
    figures of each, by its name."""

    def __init__(self, build: Callable[[], Dataset], name: str, *, alone: bool) -> None:
        self._build, self._name, self._alone = build, name, alone
        self._executor: StreamingExecutor | None = None
        self._ended = threading.Event()
        self.operators: dict[str, dict[str, float]] = {}

    def tables(self) -> Iterator[pa.Table]:
        """What the last operator gives, block by block as it comes, in no order.

        ClusterError: the pipeline ended for a reason that is not one of our workers' outcomes. After `stop` it ends.
        """
        try:
            with helpers_in_this_process() if self._alone else nullcontext():
                yield from self._tables()
        finally:
            self._ended.set()

    def _tables(self) -> Iterator[pa.Table]:
        try:
            dataset = self._build()
            dataset.set_name(self._name)
            _set(dataset.context, self)
            # With no batch fetched ahead each is handed over at once, and not when the next has come.
            yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        except (RayError, ExecutionTimeoutError) as exc:
            raise ClusterError(
                f"the workers of this run ended: {said_by_worker(exc)}. "
                "What was committed stays. Run the same command again to go on."
            ) from exc

    def stop(self) -> bool:
        """End the workers; whoever waits in `tables` finds it at its end. From another thread, once that one has begun:
        an executor that does not run yet would not hear of it, and is waited for. False: there is no Ray any more that
        could end them, and who waits for it does so for ever."""
        while not self._ended.is_set():
            if is_lost():
                return False
            if self._executor is not None and self._executor._execution_started:
                self._executor.shutdown(force=True)
                return True
            self._ended.wait(_POLL_S)
        return True

    @property
    def num_actors(self) -> int:
        """How many actors work now, in all pools."""
        if self._executor is None or not self._executor._topology:
            return 0
        return sum(op.get_actor_info().running for op in list(self._executor._topology))

    def before_execution_starts(self, executor: StreamingExecutor) -> None:
        self._executor = executor
        if not self._alone:
            share_cluster(executor)

    def after_execution_succeeds(self, executor: StreamingExecutor) -> None:
        self._read_figures(executor)

    def after_execution_fails(self, executor: StreamingExecutor, error: Exception) -> None:
        self._read_figures(executor)

    def _read_figures(self, executor: StreamingExecutor) -> None:
        for op in executor._topology or ():
            found = op.metrics.as_dict(skip_internal_metrics=True)
            self.operators[op.name] = {name: found[name] for name in _FIGURES if found.get(name) is not None}


class _Given:
    """Ray Data makes its callbacks from classes, and sends the context that lists them to every worker."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __call__(self) -> ExecutionCallback:
        return self._execution

    def __deepcopy__(self, memo: dict[int, Any]) -> _Given:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return ExecutionCallback, ()


def _set(context: Any, execution: Execution) -> None:
    """Nothing on the terminal, and nothing that costs time without being of use to a label job."""
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None  # else a thread of each task reads its memory every second
    context.issue_detectors_config.detectors = []
    context.custom_execution_callback_classes = [_Given(execution)]
    for handler in list(logging.getLogger("ray.data").handlers):
        if isinstance(handler, logging.StreamHandler):
            logging.getLogger("ray.data").removeHandler(handler)
    logging.getLogger("ray.data").setLevel(logging.INFO)
