"""A Ray that one job has to itself, on one machine: nobody else asks what Ray Data does there.

Ray Data starts three actors of its own beside the workers: one keeps statistics for a dashboard, one shares a cluster's
resources among jobs, one knows on which node an actor is. Each is a process that imports Ray Data. On two cores they
took 8 of 63 CPU-seconds of a job over 4,000 photographs, 3% of each core while the workers were at it, and 330 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import ray
from ray.data._internal import stats
from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as sharing
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.utils import cached_ray_internals

__all__ = ["helpers_in_this_process"]


@contextmanager
def helpers_in_this_process() -> Iterator[None]:
    """What Ray Data asks of its helpers is answered here, for the time of the block."""
    statistics, locations = _Helper(_Statistics()), _Helper(_Locations())
    coordinator = _Helper(_Coordinator(send_resources_request=_ask_nobody))
    with ExitStack() as until_the_end:
        for module, name, helper in (
            (stats, "get_or_create_stats_actor", statistics),
            (actor_pool_map_operator, "get_or_create_actor_location_tracker", locations),
            (cached_ray_internals, "get_or_create_actor_location_tracker", locations),
            (sharing, "get_or_create_autoscaling_coordinator", coordinator),
        ):
            until_the_end.enter_context(_replaced(module, name, lambda helper=helper: helper))
        yield


class _Coordinator(sharing._AutoscalingCoordinatorActor):
    """On one machine nothing changes by itself. Its thread, which nothing ends, would ask a Ray that is gone."""

    TICK_INTERVAL_S = 10**9


def _ask_nobody(*_: object, **__: object) -> None:
    """There is no autoscaler that could find another machine."""


class _Helper:
    """Stands for an actor: its methods run at once, in this process."""

    def __init__(self, actor: object) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        method = getattr(self._actor, name)
        return SimpleNamespace(remote=lambda *args, **kwargs: ray.put(method(*args, **kwargs)))

    def __reduce__(self) -> tuple[type[_Helper], tuple[_Locations]]:
        return _Helper, (_Locations(),)  # a worker says where it is, which is known on a machine alone


class _Statistics:
    """Nobody looks at them; the receipt has its own."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Locations:
    def update_actor_location(self, actor: str, node: str) -> None: ...

    def get_actor_locations(self, actors: object) -> dict[str, str]:
        return {}


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
