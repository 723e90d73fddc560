"""Connecting a process to a Ray of its own, or to the one that RAY_ADDRESS names."""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from labelmill.cluster.imports import import_ray, importing
from labelmill.cluster.loss import Head, shut_down, watched
from labelmill.cluster.own import own_ray
from labelmill.cluster.reach import check_answers, cluster_address, no_answer
from labelmill.cluster.resources import Resources, resources_here, resources_of
from labelmill.cluster.signals import signals_stay
from labelmill.cluster.words import first_line

__all__ = ["Connection", "connect", "connect_ahead", "resources_at_hand"]

logger = logging.getLogger(__name__)

# Ray reads these when it is imported, and hands them down to every process it starts.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread of Ray's libraries that asks it too late starts a second one
    "GRPC_VERBOSITY": "ERROR",
}

_ANSWERS_WITHIN_S = 10.0


@contextmanager
def connect(
    *, num_cpus: int | None = None, show_workers_output: bool = False, modules: Sequence[str] = ()
) -> Iterator[Resources]:
    """Connect this process to Ray and yield what there is to run on; disconnect, or end the local Ray, on the way out.

    With RAY_ADDRESS set, attaches to that cluster with the caller's own RAY_AUTH_* settings. Without it, starts a local
    Ray with `num_cpus` (default: the cores that this process may use), whose every port is on loopback, and wants a
    token that lies in a file only this user can read. `show_workers_output` prints on this terminal what its workers
    print. `modules` are imported here, once Ray's settings are made; and by the workers of a local Ray as they start,
    which happens while this process still waits.

    ClusterError: Ray did not start, or did not answer.
    """
    # Ray's C++ side writes errors that it then mends by itself on the terminal of the job.
    quiet = _QUIET if show_workers_output else _QUIET | {"RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ.update({name: value for name, value in quiet.items() if name not in os.environ})
    if address := cluster_address():
        running = _attached(address, show_workers_output, modules)
    else:
        running = own_ray(num_cpus, show_workers_output, modules)
    with running as resources:
        yield resources


class Connection:
    """A connection that is made in a thread of its own, while its owner has other things to do. The thread stays until
    the connection is closed: Linux ends what a thread has started, with Ray's settings, together with that thread."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._made: Future[Resources] = Future()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection", daemon=True)

    def begin(self) -> None:
        """Start making it, unless it has begun; returns at once."""
        if self._thread.ident is None:
            self._thread.start()

    def resources(self) -> Resources:
        """What there is to run on, as soon as it is known. Raises as `connect` does."""
        self.begin()
        return self._made.result()

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        if self._closing.is_set():
            return  # a signal was raised in the main thread while it started this one
        try:
            with connect(modules=self._modules) as resources:
                self._made.set_result(resources)
                self._closing.wait()
        except BaseException as exc:  # noqa: BLE001 - it belongs to the thread that asks for the resources
            if not self._made.done():
                self._made.set_exception(exc)
            else:
                logger.warning("Ray did not end as it should: %s", exc)


@contextmanager
def connect_ahead(*modules: str) -> Iterator[Connection]:
    """For the time of the block, a connection that begins when it is told to: `connect` with these modules."""
    connection = Connection(modules)
    try:
        yield connection
    finally:
        connection.close()


def resources_at_hand() -> Resources:
    """What `connect` would yield, without starting a Ray for it. ClusterError: that of RAY_ADDRESS did not answer."""
    if cluster_address():
        with connect() as resources:
            return resources
    return resources_here()


@contextmanager
def _attached(address: str, show_workers_output: bool, modules: Sequence[str]) -> Iterator[Resources]:
    check_answers(address, _ANSWERS_WITHIN_S)
    ray = import_ray()
    try:
        with importing(modules), signals_stay():
            ray.init(address=address, log_to_driver=show_workers_output, logging_level=logging.ERROR)
    except Exception as exc:
        raise no_answer(address, first_line(exc)) from exc
    place = ray.get_runtime_context().gcs_address
    try:
        with watched(Head(place).gone):
            yield resources_of(ray, local=False)
    finally:
        shut_down(ray)
