"""Where a job runs: on a Ray of its own, started here and ended with it, or on the one that RAY_ADDRESS names."""

import atexit
import ctypes
import importlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import psutil

from labelmill.allowance import cores_here
from labelmill.ending import end_main_thread
from labelmill.errors import ClusterError, NoRayError
from labelmill.machine import ray_folder

__all__ = [
    "Connection",
    "Resources",
    "check_answers",
    "cluster_address",
    "connect",
    "connect_ahead",
    "cores_in_use",
    "count_gpus",
    "is_lost",
    "nodes",
    "resources_at_hand",
    "said_by_worker",
]

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
_LOOK_EVERY_S = 0.2
_ASK_EVERY_S = 3.0
_HEAD_SILENT_S = 40.0  # after 60 Ray ends this process
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGACTION_BYTES = 1024  # more than any C library's structure has
_RAISED = re.compile(r"^(?!ray\.)[\w.]+(Error|Exception): .+", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """What the connected Ray has in all, and whether this process started it."""

    cpus: int
    gpus: int
    local: bool


def cluster_address() -> str | None:
    """What RAY_ADDRESS names; None where a job runs on a Ray of its own."""
    address = os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def check_answers(address: str, timeout_s: float) -> None:
    """NoRayError: nobody there speaks Ray's protocol, or no node of that cluster is on this machine; Ray itself would
    try for minutes. ClusterError: an address over which no job runs."""
    if address.startswith("ray://"):
        raise ClusterError(
            f"RAY_ADDRESS is {address!r}, a Ray Client address, over which jobs do not run. "
            "Give the address of the cluster itself (HOST:6379), from one of its nodes."
        )
    import grpc

    _import_ray()
    from ray._private import grpc_utils, services

    until = time.monotonic() + timeout_s
    try:
        place = services.canonicalize_bootstrap_address(address)
    except Exception as exc:
        raise _no_answer(address, _first_line(exc)) from exc
    if place is None:
        return
    with grpc_utils.init_grpc_channel(place) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError:
            raise _no_answer(address, f"nothing that speaks to Ray did within {timeout_s:g} s") from None
    _check_node_is_here(address, place, until - time.monotonic())


def _check_node_is_here(address: str, place: str, timeout_s: float) -> None:
    """A driver is served by the node on its own machine. Without one Ray would look for it for a minute, and end this
    process where that node is another container's, whose processes can be seen and whose sockets cannot."""
    from ray._private import services
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    try:
        node = services.get_node_to_connect_for_driver(GcsClient(address=place), timeout_seconds=max(1.0, timeout_s))
    except RuntimeError as exc:
        if not str(exc).startswith("No node info"):
            return  # whatever it is, Ray says it when it connects
    else:
        if Path(node.raylet_socket_name).exists() and Path(node.object_store_socket_name).exists():
            return
    raise NoRayError(
        f"RAY_ADDRESS={address!r} is a cluster that this machine is no node of, and a job is started on a node. Start "
        f"it on one, or make this machine one (`ray start --address={place} --num-cpus=0`), or unset RAY_ADDRESS to "
        "run on this machine alone."
    )


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
        running = _local(num_cpus, show_workers_output, modules)
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


def nodes(resource: str = "CPU") -> dict[str, str]:
    """The address of each node that has some of this, by its id, of the Ray that this process is connected to."""
    ray = _import_ray()
    found = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource)]
    return {node["NodeID"]: node["NodeManagerAddress"] for node in found}


def cores_in_use() -> tuple[int, int]:
    """How many cores that Ray has, and how many of them somebody holds."""
    ray = _import_ray()
    total, free = (found.get("CPU", 0.0) for found in (ray.cluster_resources(), ray.available_resources()))
    return int(total), round(total - free)


def count_gpus() -> int:
    """How many GPUs `connect` would yield, without starting a Ray for it."""
    if cluster_address():
        with connect() as resources:
            return resources.gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one not in ("", "-1", "NoDevFiles")])
    return sum(1 for device in Path("/dev").glob("nvidia*") if device.name.removeprefix("nvidia").isdecimal())


def resources_at_hand() -> Resources:
    """What `connect` would yield, without starting a Ray for it. ClusterError: that of RAY_ADDRESS did not answer."""
    if cluster_address():
        with connect() as resources:
            return resources
    return Resources(cpus=cores_here(), gpus=count_gpus(), local=True)


@contextmanager
def _attached(address: str, show_workers_output: bool, modules: Sequence[str]) -> Iterator[Resources]:
    check_answers(address, _ANSWERS_WITHIN_S)
    ray = _import_ray()
    try:
        with _importing(modules), _signals_stay():
            ray.init(address=address, log_to_driver=show_workers_output, logging_level=logging.ERROR)
    except Exception as exc:
        raise _no_answer(address, _first_line(exc)) from exc
    place = ray.get_runtime_context().gcs_address
    try:
        with _watched(_Head(place).gone):
            yield _resources(ray, local=False)
    finally:
        _shut_down(ray)


def _no_answer(address: str, reason: str) -> NoRayError:
    return NoRayError(
        f"no Ray answered at RAY_ADDRESS={address!r}: {reason}. "
        "Check the address and RAY_AUTH_TOKEN_PATH, or unset RAY_ADDRESS to run on this machine alone."
    )


@contextmanager
def _local(num_cpus: int | None, show_workers_output: bool, modules: Sequence[str]) -> Iterator[Resources]:
    if "ray" in sys.modules and not _token.cache_info().currsize:
        raise ClusterError(
            "Ray was imported before labelmill could set it up for this process: start the job before `import ray`, "
            "or start a Ray yourself and name it in RAY_ADDRESS."
        )
    with _own_folder() as folder, _environment(_private_settings(folder, modules)):
        ray = _import_ray()
        try:
            _start(ray, folder, num_cpus, show_workers_output, modules)
            with _watched(_gone_process):
                yield _resources(ray, local=True)
        finally:
            _shut_down(ray)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """For the token's file, Ray's sockets and logs, which stay if it does not start."""
    folder = ray_folder()
    try:
        yield folder
    except NoRayError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    ray: ModuleType, folder: Path, num_cpus: int | None, show_workers_output: bool, modules: Sequence[str]
) -> None:
    try:
        with (
            _importing(modules),
            _native_messages_to(folder / "start.log"),
            _few_processes(log_monitor=show_workers_output),
            _signals_stay(),
        ):
            ray.init(
                address="local",
                num_cpus=num_cpus or cores_here(),  # Ray counts all of a machine's
                include_dashboard=False,
                log_to_driver=show_workers_output,
                logging_level=logging.ERROR,
                _temp_dir=str(folder / "ray"),
            )
    except Exception as exc:
        raise NoRayError(f"Ray did not start on this machine: {_first_line(exc)}. Its logs: {folder}") from exc


@contextmanager
def _importing(modules: Sequence[str]) -> Iterator[None]:
    """Import modules in a thread for the time of the block: Ray's start is mostly waiting."""
    with ThreadPoolExecutor(1, "import") as beside:
        imported = [beside.submit(importlib.import_module, module) for module in modules]
        yield
        for module in imported:
            module.result()


def _shut_down(ray: ModuleType) -> None:
    if is_lost():  # it would wait for who does not answer; its processes end with this one
        atexit.unregister(ray.shutdown)
        return
    with _signals_stay():
        ray.shutdown()


_lost = threading.Event()


def is_lost() -> bool:
    """Whether Ray was gone while this process was connected to it: whoever asks it anything more waits for ever."""
    return _lost.is_set()


@contextmanager
def _watched(gone: Callable[[], str | None]) -> Iterator[None]:
    """Ray ends a process that has lost it, with all that is open and no word: within a second or two of the death of
    its raylet, and after a minute without its head. So it is looked at here, and the main thread is ended before."""
    _lost.clear()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            if reason := gone():
                _lost.set()
                end_main_thread(NoRayError(f"{reason}. What was finished stays: run the same command again to go on."))
                return

    watching = threading.Thread(target=watch, name="watch", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


def _gone_process() -> str | None:
    """Which part of the own Ray is gone. Not reaped here: Ray takes its raylet for alive until it is."""
    from ray._private import worker

    for name, processes in dict(worker._global_node.all_processes).items():
        for one in processes:
            try:
                if psutil.Process(one.process.pid).status() != psutil.STATUS_ZOMBIE:
                    continue
            except psutil.NoSuchProcess:
                pass
            return f"Ray's {name} on this machine ended unexpectedly, for want of memory perhaps"
    return None


class _Head:
    """The head of a cluster; with fault tolerance it may come back."""

    def __init__(self, place: str) -> None:
        host, _, port = place.rpartition(":")
        self._place, self._at = place, (host.strip("[]"), int(port))
        self._answered_at = self._looked_at = time.monotonic()

    def gone(self) -> str | None:
        now = time.monotonic()
        if now - self._looked_at > _ASK_EVERY_S:
            self._looked_at = now
            try:
                socket.create_connection(self._at, timeout=_ASK_EVERY_S).close()
                self._answered_at = time.monotonic()
            except OSError:
                silent_s = time.monotonic() - self._answered_at
                if silent_s > _HEAD_SILENT_S:
                    return f"the head of the Ray cluster at {self._place} has not answered for {silent_s:.0f} s"
        return None


@contextmanager
def _signals_stay() -> Iterator[None]:
    """Whoever starts or ends Ray keeps his ways to end.

    Ray's Python side takes SIGTERM, and then ends with code 15. Its C++ side takes it as well, prints a trace of the
    machine's code, and gives it back to nobody. Both may happen in a thread, where Python's `signal` sets nothing, and
    of C++ it knows nothing: hence the C library's own call.
    """
    from ray._private import utils

    libc, take = ctypes.CDLL(None), utils.set_sigterm_handler
    actions = {number: ctypes.create_string_buffer(_SIGACTION_BYTES) for number in _ENDING}
    for number, action in actions.items():
        libc.sigaction(number, None, action)
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = take
        for number, action in actions.items():
            libc.sigaction(number, action, None)


@contextmanager
def _few_processes(*, log_monitor: bool) -> Iterator[None]:
    """Let Ray start with a node only what runs tasks on it, and not what serves people: the API server, which it starts
    even without its dashboard, the autoscaler of a cluster that has one node, and what passes on workers' output.

    Ray has no setting for it. On two cores it saves 1.8 s of 5.3 when Ray starts and 1.1 of 1.4 when it ends, and about
    3 CPU-seconds.
    """
    from ray._private import node, parameter, utils

    server, params, look = node.Node.start_api_server, parameter.RayParams, utils.get_dashboard_dependency_error
    node.Node.start_api_server = lambda self, **_: setattr(self, "_webui_url", None)
    parameter.RayParams = partial(params, no_monitor=True, include_log_monitor=log_monitor)
    utils.get_dashboard_dependency_error = lambda: None  # it imports them all to see that they are there
    try:
        yield
    finally:
        node.Node.start_api_server, parameter.RayParams = server, params
        utils.get_dashboard_dependency_error = look


@contextmanager
def _native_messages_to(file: Path) -> Iterator[None]:
    """Ray's C++ side announces its log level on stderr, whatever that level is."""
    sys.stderr.flush()
    terminal = os.dup(2)
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.dup2(target, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(target)


def _private_settings(folder: Path, modules: Sequence[str]) -> dict[str, str]:
    (folder / "tmp").mkdir()
    token_file = folder / "auth_token"
    with os.fdopen(os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_token())
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # What Ray does by itself on macOS and Windows: take 127.0.0.1 for this node's address. Otherwise a dozen of its
        # ports listen on every interface, and those of its metrics ask for no token.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Ray would run its workers at niceness 15, below everything else on the machine: they are what it is for.
        "RAY_worker_niceness": "0",
        "RAY_preload_python_modules": ",".join(modules),
        "TMPDIR": str(folder / "tmp"),  # what a worker that is ended leaves behind goes with the folder
    }


@cache
def _token() -> str:
    """One for the life of this process: Ray reads it once."""
    return secrets.token_hex(32)


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in [*settings, "RAY_AUTH_TOKEN"]}
    os.environ.update(settings)
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would win over the file, and show in every child's environment
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _import_ray() -> ModuleType:
    return importlib.import_module("ray")


def _resources(ray: ModuleType, *, local: bool) -> Resources:
    found = ray.cluster_resources()
    return Resources(cpus=max(1, int(found.get("CPU", 0))), gpus=int(found.get("GPU", 0)), local=local)


def said_by_worker(exc: BaseException) -> str:
    """The line of what was raised in a worker: Ray's text begins with where that was, and its traceback."""
    found = _RAISED.search(str(exc))
    return found[0] if found else _first_line(exc)


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
