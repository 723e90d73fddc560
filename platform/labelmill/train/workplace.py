"""Ray with room for the workers of a spec, and how the process that started them waits."""

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from labelmill.cluster import Resources, connect
from labelmill.errors import ClusterError
from labelmill.spec import Range, Workers

__all__ = ["last_line", "looking", "workplace"]

_LOOK_EVERY_S = 0.5


@contextmanager
def workplace(workers: Workers) -> Iterator[None]:
    """Ray for the time of the block. ClusterError: it does not start, or has not what the workers ask for."""
    with ThreadPoolExecutor(1) as early, ExitStack() as stack:
        # Ray's start is mostly waiting, and Ray Train is about to import torch into this process, too.
        early.submit(importlib.import_module, "torch")
        resources = stack.enter_context(connect())
        _check_resources(workers, resources)
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "1")  # how soon Ray sees that the workers are done
        if resources.local:  # nobody takes this machine's node away: spare an actor, 4 s of CPU while the workers start
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        yield


@contextmanager
def looking(look: Callable[[], None]) -> Iterator[None]:
    """`look` twice a second in a thread, while the block waits for Ray; and once at the end.

    The block stays in the main thread: a signal ends the waiting at once, and nobody still waits in Ray while it is
    shut down, which crashes.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            look()

    with ThreadPoolExecutor(1, "look") as beside:
        watching = beside.submit(watch)
        try:
            yield
        finally:
            done.set()
    watching.result()
    look()


def last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _check_resources(workers: Workers, resources: Resources) -> None:
    if not resources.local:
        return  # a cluster may still grow
    count = workers.count.min if isinstance(workers.count, Range) else workers.count
    for what, each, there in (("CPUs", workers.cpus, resources.cpus), ("GPUs", workers.gpus, resources.gpus)):
        if count * each > there:
            raise ClusterError(
                f"{count} workers with {each:g} {what} each want {count * each:g}, and this machine has {there}. "
                f"Lower workers.count or workers.{what.lower()}, or set RAY_ADDRESS to a cluster."
            )
