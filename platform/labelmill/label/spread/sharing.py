"""What a job leaves to others that Ray Data runs on the same cluster.

Ray Data's coordinator serves what was asked for in the order of arrival, and only then divides what is left. A job that
runs asks for twice what it has, so as to make the cluster grow: with that the first would have all of it until its end,
and its pool, whose actors never are without work, gives nothing back. So while there are several, a job asks for no
more than its share, and hands out no chunk while its pool has more than that, until enough actors are idle to be ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import ray
from ray.data._internal.actor_autoscaler.autoscaling_actor_pool import ActorPoolScalingRequest, AutoscalingActorPool
from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import STANDARD_RESOURCE_TYPES
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import DefaultAutoscalingCoordinator
from ray.data._internal.execution.backpressure_policy import BackpressurePolicy
from ray.data._internal.execution.interfaces import PhysicalOperator
from ray.data._internal.execution.interfaces.execution_options import ExecutionResources
from ray.data._internal.execution.streaming_executor import StreamingExecutor

__all__ = ["share_cluster"]

_SILENT_S = 30.0  # a job asks every 10 s: one that has not for so long is dead, and counts for 180 s with Ray Data
_ASKS_FOR_S = 180.0


def share_cluster(executor: StreamingExecutor) -> None:
    """From the start of an execution on, let it leave their share to others."""
    autoscaler = executor._cluster_autoscaler
    asked = autoscaler._autoscaling_coordinator
    share = autoscaler._autoscaling_coordinator = _Share(asked._requester_id)
    executor._backpressure_policies.append(_GiveWay(share))


class _Share(DefaultAutoscalingCoordinator):
    """Asks Ray Data's coordinator, and knows how many jobs do."""

    def __init__(self, requester_id: str) -> None:
        super().__init__(requester_id)
        self.num_jobs = 1
        self.cluster = ExecutionResources.zero()
        self._answer: Any = None

    def request_resources(self, resources: list[dict[str, float]], *args: Any, **kwargs: Any) -> None:
        super().request_resources(resources if self.num_jobs == 1 else [], *args, **kwargs)

    def get_reserved_resources(self) -> Any:
        """Asked for about every second, and answered with what was heard last."""
        if self._answer is not None and self._answer.done():
            self._hear(self._answer)
            self._answer = None
        if self._answer is None:
            requests = self._autoscaling_coordinator.__ray_call__.remote(attrgetter("_ongoing_reqs"))
            self._answer = requests.future()
        return super().get_reserved_resources()

    def _hear(self, answer: Any) -> None:
        if answer.exception() is not None:
            return  # the coordinator starts anew on another node: what it said last holds
        before, self.num_jobs = self.num_jobs, _num_alive([one.expiration_time for one in answer.result().values()])
        if self.num_jobs > 1:
            self.cluster = ExecutionResources.from_resource_dict(ray.cluster_resources())
        if before == 1 < self.num_jobs:
            self.request_resources([], _ASKS_FOR_S, STANDARD_RESOURCE_TYPES)


def _num_alive(expire_at: Sequence[float]) -> int:
    newest = max(expire_at, default=0.0)
    return max(1, sum(newest - one < _SILENT_S for one in expire_at))


class _GiveWay(BackpressurePolicy):
    """No chunk for a pool that has more than its share, and an end to its actors that have nothing to do."""

    def __init__(self, share: _Share) -> None:
        self._share = share

    def can_add_input(self, op: PhysicalOperator) -> bool:
        if self._share.num_jobs == 1:
            return True
        return all(self._is_within_share(pool) for pool in op.get_autoscaling_actor_pools())

    def _is_within_share(self, pool: AutoscalingActorPool) -> bool:
        actors = self._share.cluster.floordiv(pool.per_actor_resource_usage())
        kept = max(pool.min_size(), math.ceil(min(actors.cpu, actors.gpu) / self._share.num_jobs))
        if (excess := pool.current_size() - kept) > 0:
            pool.scale(ActorPoolScalingRequest.downscale(delta=-excess, force=True, reason="others have a share"))
        return bool(pool.current_size() <= kept)
