"""A Ray of a job's own on this machine: on loopback, behind a token, with no process that nobody needs."""

import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import ModuleType

from labelmill.allowance import cores_here
from labelmill.cluster.imports import import_ray, importing
from labelmill.cluster.loss import gone_process, shut_down, watched
from labelmill.cluster.resources import Resources, resources_of
from labelmill.cluster.signals import signals_stay
from labelmill.cluster.words import first_line
from labelmill.errors import ClusterError, NoRayError
from labelmill.machine import ray_folder

__all__ = ["own_ray"]


@contextmanager
def own_ray(num_cpus: int | None, show_workers_output: bool, modules: Sequence[str]) -> Iterator[Resources]:
    if "ray" in sys.modules and not _token.cache_info().currsize:
        raise ClusterError(
            "Ray was imported before labelmill could set it up for this process: start the job before `import ray`, "
            "or start a Ray yourself and name it in RAY_ADDRESS."
        )
    with _own_folder() as folder, _environment(_private_settings(folder, modules)):
        ray = import_ray()
        try:
            _start(ray, folder, num_cpus, show_workers_output, modules)
            with watched(gone_process):
                yield resources_of(ray, local=True)
        finally:
            shut_down(ray)


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
            importing(modules),
            _native_messages_to(folder / "start.log"),
            _few_processes(log_monitor=show_workers_output),
            signals_stay(),
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
        raise NoRayError(f"Ray did not start on this machine: {first_line(exc)}. Its logs: {folder}") from exc


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
