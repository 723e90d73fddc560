"""OpenVINO on the CPU: in float32, in bfloat16 where the CPU has it and it is worth it, or in the 8-bit integers that a
quantized bundle carries. Neither torch nor timm is imported here: the graph comes from a cache, and what is not
in the cache is converted in a child process.

The graph runs on fixed batches of 8 and, for what is left over, of 1. Measured on one thread at 224 px, pictures a
CPU-second, for a dynamic batch of 32 and fixed ones of 32, 8 and 1: mobilenetv3_small_100 395, 435, 510, 490;
resnet18 34, 34, 36, 31; efficientnet_b0 57, 65, 67, 62. On a CPU with AMX, in float32 and in bfloat16, batches of 8:
mobilenetv3_small_100 823 and 1,387; resnet18 51 and 312; efficientnet_b0 105 and 161.
"""

from functools import cached_property, partial
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from labelmill.model.bundle import Bundle
from labelmill.model.engines import PrecisionName
from labelmill.model.engines.graphs import converted_graph, takes_bfloat16
from labelmill.model.quantized import is_quantized

__all__ = ["BATCH_SIZE", "OpenVinoEngine", "compile_graph"]

BATCH_SIZE = 8


class OpenVinoEngine:
    """One inference stream. With num_threads=1, one engine a core is the fastest way to run a machine full."""

    name = "openvino"
    gpu = None

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: PrecisionName = "auto",
        num_threads: int | None = None,
        embeddings: bool = False,
    ) -> None:
        self._graph = partial(converted_graph, bundle, embeddings=embeddings)
        self._low = takes_bfloat16(bundle, self._graph(), precision)
        self.precision = "int8" if is_quantized(bundle) else "bfloat16" if self._low else "float32"
        self._num_threads = num_threads
        self._num_outputs = 2 if embeddings else 1
        self._batches = self._compiled_for(BATCH_SIZE)

    def forward(self, pixels_bhwc: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        count = len(pixels_bhwc)
        full = count - count % BATCH_SIZE
        parts = [
            self._infer(self._batches, pixels_bhwc[start : start + BATCH_SIZE]) for start in range(0, full, BATCH_SIZE)
        ]
        parts += [self._infer(self._singles, pixels_bhwc[index : index + 1]) for index in range(full, count)]
        logits, *features = (np.concatenate(output) for output in zip(*parts, strict=True))
        return logits, features[0] if features else None

    def _infer(self, request: ov.InferRequest, pixels_bhwc: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        outputs = request.infer([np.ascontiguousarray(pixels_bhwc)], share_inputs=True)
        return [outputs[index] for index in range(self._num_outputs)]

    @cached_property
    def _singles(self) -> ov.InferRequest:
        return self._compiled_for(1)

    def _compiled_for(self, batch_size: int) -> ov.InferRequest:
        compiled = compile_graph(self._graph(), batch_size, self._num_threads, bfloat16=self._low)
        return compiled.create_infer_request()


def compile_graph(path: Path, batch_size: int, num_threads: int | None, *, bfloat16: bool = False) -> ov.CompiledModel:
    """A converted graph, compiled for this CPU and one batch size."""
    core = ov.Core()
    graph = core.read_model(path)
    graph.reshape([batch_size, *graph.inputs[0].partial_shape[1:]])
    options = {
        # Left alone, CPUs with bf16 instructions would answer in bf16.
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # pinned, two processes of two threads each were seen on the same core
    }
    if num_threads is not None:
        options["INFERENCE_NUM_THREADS"] = num_threads
    return core.compile_model(graph, "CPU", options)
