"""The process that has a GPU, and how a worker reaches it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from labelmill.errors import ClusterError, LabelmillError
from labelmill.label.work.stage import Stage
from labelmill.model.engines import Gpu, Outputs

__all__ = ["GpuProcess", "RemoteGpu"]

logger = logging.getLogger(__name__)

_SOON_S, _PATIENCE_S = 60.0, 540.0  # for a process to start, fetch the models and load them


class GpuProcess:
    """An actor that has a GPU, with the networks on it: a few workers' pictures at a time, so that some are decoded
    while the networks see others. Processes that share a GPU take turns on the whole of it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._lock = threading.Lock()
        self._loaded: Gpu | None = None

    @ray.method(max_task_retries=-1)
    def about(self) -> tuple[str, bool]:
        """On which node it runs, and whether it decodes; once the networks are loaded."""
        return str(ray.get_runtime_context().get_node_id()), self._gpu().decodes

    def forward(self, *pictures: Any) -> list[Outputs] | None:
        try:
            return self._gpu().forward(*pictures)
        except RuntimeError as exc:
            if "CUDA error" not in str(exc):
                raise
            logger.exception("this process ends, since a CUDA error stays with it; Ray starts another")
            os._exit(1)

    def _gpu(self) -> Gpu:
        from labelmill.model.engines.torch_engine import TorchEngine, TorchOnGpu

        with self._lock:
            if self._loaded is None:
                stage = self._stage
                engines = [
                    TorchEngine(bundle, precision=stage.precision, embeddings=stage.embeddings)
                    for bundle in stage.bundles
                ]
                self._loaded = TorchOnGpu(engines)
            return self._loaded


class RemoteGpu:
    """One of the processes that have a GPU, as a worker sees it: on the worker's own node where there is one, since the
    others are reached through the network. ClusterError: none of them answers."""

    def __init__(self, processes: Sequence[Any], number: int) -> None:
        self._processes, self._number = processes, number
        self.decodes = False
        self.choose()

    def forward(
        self, jpegs: NDArray[np.uint8], sizes_bytes: Sequence[int], pixels_bhwc: Sequence[NDArray[np.uint8]]
    ) -> list[Outputs] | None:
        """As `Gpu.forward`. RayActorError: the process died."""
        outputs: list[Outputs] | None = _answer(self._process.forward.remote(jpegs, sizes_bytes, pixels_bhwc))
        return outputs

    def choose(self) -> None:
        """Wait for the processes that are starting, as one does that died, and take one that answers."""
        asked = {process.about.remote(): process for process in self._processes}
        answered, late = ray.wait(list(asked), num_returns=len(asked), timeout=_SOON_S)
        if not answered:
            answered, _ = ray.wait(late, num_returns=1, timeout=_PATIENCE_S)
        if not answered:
            raise ClusterError(
                f"none of {len(asked)} processes with a GPU answered within {_SOON_S + _PATIENCE_S:.0f} s. What was "
                "committed stays. Look after the cluster's GPU nodes, or write engine: openvino, and run again."
            )
        found = [(asked[answer], *_answer(answer)) for answer in answered]
        here = ray.get_runtime_context().get_node_id()
        near = [one for one in found if one[1] == here] or found
        self._process, _, self.decodes = near[self._number % len(near)]


def _answer(asked: Any) -> Any:
    try:
        return ray.get(asked)
    except RayTaskError as exc:
        if isinstance(exc.cause, LabelmillError):
            raise exc.cause from None
        raise
