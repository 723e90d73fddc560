"""Serve a model over HTTP until someone says stop."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from labelmill.cluster import Resources, cluster_address, connect
from labelmill.errors import ClusterError
from labelmill.model.cache import check_cache
from labelmill.model.engines.graphs import is_at_hand
from labelmill.model.registry import Registry
from labelmill.serve import front
from labelmill.serve.settings import Settings
from labelmill.spec import LoadedSpec, ServeSpec

__all__ = ["run"]

logger = logging.getLogger(__name__)


def run(loaded: LoadedSpec) -> None:
    """Serve what the spec says, and say where when it is ready, until a signal raises an exception in the main thread,
    from where this is to be called; all is put away before it leaves here.

    RegistryError, BundleError: the model is not there
    or damaged. ClusterError: the address is taken, Ray does not start, or has not what the replicas need.
    """
    spec = loaded.spec
    assert isinstance(spec, ServeSpec)
    bundle = Registry(spec.registry).resolve(spec.model)
    bundle.verify()  # what is wrong with the model, or with the cache, is said before Ray starts
    if cluster_address() is None and not is_at_hand(bundle, spec.engine):
        check_cache()
    _check_address(spec.host, spec.port)
    with _environment(spec), connect(show_workers_output=True) as resources, _serving(spec, resources):
        sys.stdout.write(f"{spec.name} serves {spec.model} at {_page_address(spec)}\n")
        sys.stdout.flush()
        while True:
            signal.pause()


@contextmanager
def _serving(spec: ServeSpec, resources: Resources) -> Iterator[None]:
    if spec.replicas > resources.cpus:
        raise ClusterError(
            f"replicas: expected at most {resources.cpus}, the CPUs of this Ray, one for each; got {spec.replicas}"
        )
    # Not at the top: Ray reads its environment when it is imported.
    from ray import serve

    from labelmill.serve.deployment import application

    if serve.status().proxies:
        raise ClusterError("a Ray Serve runs on this cluster already, on an address of its own: use another cluster")
    try:
        _start(serve, spec)
        serve.run(application(Settings.of(spec), num_replicas=spec.replicas), name=spec.name, route_prefix="/")
        yield
    except RuntimeError as exc:
        raise ClusterError(f"Ray Serve did not start the endpoint: {' '.join(str(exc).split())}") from exc
    finally:
        _stop(serve, spec, resources)


def _stop(serve: Any, spec: ServeSpec, resources: Resources) -> None:
    """Let the replicas finish what they have in hand; then Serve may go, where Ray does not go with us anyway."""
    if not resources.local:
        serve.shutdown()
        return
    with suppress(serve.exceptions.RayServeException):  # it had not started yet
        serve.delete(spec.name)


def _start(serve: Any, spec: ServeSpec) -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": _bare(spec.host), "port": spec.port, "request_timeout_s": 60.0},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )


def _check_address(host: str, port: int) -> None:
    """ClusterError when nobody can listen there: found out in a millisecond, not after Ray has started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_bare(host), port))
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise ClusterError(
                f"cannot listen on {host}:{port}: {reason}. Give the spec another port or host, or stop who has it"
            ) from exc


def _bare(host: str) -> str:
    return host.strip("[]")


def _page_address(spec: ServeSpec) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(_bare(spec.host), _bare(spec.host))
    return f"http://{f'[{host}]' if ':' in host else host}:{spec.port}/"


@contextmanager
def _environment(spec: ServeSpec) -> Iterator[None]:
    # HAProxy mode listens on every interface, whatever host it is given.
    settings = {**front.environment(spec.max_request_bytes), "RAY_SERVE_ENABLE_HA_PROXY": "0"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
