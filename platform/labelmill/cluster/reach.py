"""Which cluster RAY_ADDRESS names, and whether a job can run there: asked before Ray asks, which takes minutes."""

import os
import time
from pathlib import Path

from labelmill.cluster.imports import import_ray
from labelmill.cluster.words import first_line
from labelmill.errors import ClusterError, NoRayError

__all__ = ["check_answers", "cluster_address", "no_answer"]


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

    import_ray()
    from ray._private import grpc_utils, services

    until = time.monotonic() + timeout_s
    try:
        place = services.canonicalize_bootstrap_address(address)
    except Exception as exc:
        raise no_answer(address, first_line(exc)) from exc
    if place is None:
        return
    with grpc_utils.init_grpc_channel(place) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError:
            raise no_answer(address, f"nothing that speaks to Ray did within {timeout_s:g} s") from None
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


def no_answer(address: str, reason: str) -> NoRayError:
    return NoRayError(
        f"no Ray answered at RAY_ADDRESS={address!r}: {reason}. "
        "Check the address and RAY_AUTH_TOKEN_PATH, or unset RAY_ADDRESS to run on this machine alone."
    )
