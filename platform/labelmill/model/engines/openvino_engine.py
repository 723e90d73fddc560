"""OpenVINO on the CPU: in float32, in bfloat16 where that is asked for and the CPU has it, or in the 8-bit integers
that a quantized bundle carries. Neither torch nor timm is imported here: the graph comes from a cache, and what is not
in the cache is converted in a child process.

The graph runs on fixed batches of 8 and, for what is left over, of 1. Measured on one thread at 224 px, pictures a
CPU-second, for a dynamic batch of 32 and fixed ones of 32, 8 and 1: mobilenetv3_small_100 395, 435, 510, 490;
resnet18 34, 34, 36, 31; efficientnet_b0 57, 65, 67, 62. On a CPU with AMX, in float32 and in bfloat16, batches of 8:
mobilenetv3_small_100 823 and 1,387; resnet18 51 and 312; efficientnet_b0 105 and 161.
"""

import fcntl
import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from labelmill.errors import BundleError
from labelmill.model.bundle import WEIGHTS_NAME, Bundle, cache_folder
from labelmill.model.engines import PrecisionName
from labelmill.model.engines.child import run_in_child
from labelmill.model.quantized import int8_graph, is_quantized

__all__ = [
    "BATCH_SIZE",
    "BFLOAT16_SPEED",
    "GRAPH_NAME",
    "SPEEDS_NAME",
    "OpenVinoEngine",
    "bfloat16_gain",
    "compile_graph",
    "converted_graph",
    "faster_engine",
    "has_bfloat16",
    "takes_bfloat16",
]

logger = logging.getLogger(__name__)

BATCH_SIZE = 8
GRAPH_NAME = "graph.xml"
SPEEDS_NAME = "speeds.json"
BFLOAT16_SPEED = "openvino_bfloat16"  # is missing there where bfloat16 is not to be had

# Raised whenever convert.py makes another graph of the same bundle, so that no old one is taken from a cache.
_CONVERSION = 3
_CLEARLY = 1.25


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
        self._graph = converted_graph(bundle, embeddings=embeddings)
        self._low = precision == "bfloat16" and takes_bfloat16(bundle, self._graph)
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
        compiled = compile_graph(self._graph, batch_size, self._num_threads, bfloat16=self._low)
        return compiled.create_infer_request()


@cache
def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX-512 BF16, AMX), and not merely converts to it and back."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def takes_bfloat16(bundle: Bundle, graph: Path) -> bool:
    """Whether an engine that is asked for bfloat16 computes in it here. A warning says why not."""
    if is_quantized(bundle):
        return False
    if not has_bfloat16():
        logger.warning("%s computes in float32: this CPU has no bfloat16", bundle.reference)
        return False
    agrees = BFLOAT16_SPEED in _speeds(graph)
    if not agrees:
        logger.warning(
            "%s computes in float32: where it was converted its answers in bfloat16 differed too much, "
            "or the CPU had none",
            bundle.reference,
        )
    return agrees


def _speeds(graph: Path) -> dict[str, float]:
    """Pictures a second on one thread, as measured at the conversion; in bfloat16 where the network can do with it."""
    speeds: dict[str, float] = json.loads(graph.with_name(SPEEDS_NAME).read_text())
    return speeds


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


def faster_engine(bundle: Bundle, precision: PrecisionName = "auto") -> Literal["openvino", "torch"]:
    """The faster engine for this bundle on one core of this machine, as measured when the bundle was converted.

    torch has to win clearly: a worker pays 4 to 5 s and 700 MB to import it. Only OpenVINO computes in 8-bit integers,
    and torch is measured in float32.
    """
    if is_quantized(bundle):
        return "openvino"
    gain = bfloat16_gain(bundle) if precision == "bfloat16" else 1.0
    speeds = _speeds(converted_graph(bundle))
    return "torch" if speeds["torch"] > _CLEARLY * gain * speeds["openvino"] else "openvino"


def bfloat16_gain(bundle: Bundle, *, embeddings: bool = False) -> float:
    """How many times as fast as in float32 OpenVINO runs this bundle in bfloat16 here; 1 where it cannot."""
    if is_quantized(bundle) or not has_bfloat16():
        return 1.0
    speeds = _speeds(converted_graph(bundle, embeddings=embeddings))
    return speeds.get(BFLOAT16_SPEED, speeds["openvino"]) / speeds["openvino"]


def converted_graph(bundle: Bundle, *, embeddings: bool = False) -> Path:
    """The bundle's network as an OpenVINO graph on this machine: converted once per content and OpenVINO version, or
    the graph that a quantized bundle carries. With `embeddings` its second output are the pooled features.

    Any number of processes may ask at once: one converts, the others wait for it. What is converted while a model is
    measured serves the published bundle as well, and so does one that differs in its thresholds alone.
    """
    if is_quantized(bundle):
        return int8_graph(bundle)
    version = ov.get_version().partition("-")[0]
    outputs = "-embeddings" if embeddings else ""
    folder = cache_folder() / "openvino" / f"{_network_digest(bundle)}-{version}-{_CONVERSION}{outputs}"
    graph = folder / GRAPH_NAME
    if graph.is_file():
        return graph
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_one_at_a_time(folder.with_suffix(".lock")):
        if not graph.is_file():
            _convert_in_child(bundle, folder, embeddings=embeddings)
    return graph


def _network_digest(bundle: Bundle) -> str:
    """sha256 of all that decides the graph."""
    content = {
        "architecture": bundle.architecture,
        "num_logits": len(bundle.labels),
        "preprocessing": bundle.preprocessing.to_json(),
        "weights": bundle.files[WEIGHTS_NAME].sha256,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _only_one_at_a_time(path: Path) -> Iterator[None]:
    """The kernel lets go of the lock when its holder dies, so a killed conversion holds nobody up."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _convert_in_child(bundle: Bundle, folder: Path, *, embeddings: bool) -> None:
    request = {
        "architecture": bundle.architecture,
        "num_logits": len(bundle.labels),
        "preprocessing": bundle.preprocessing.to_json(),
        "weights": str(bundle.weights_path()),
        "folder": str(folder),
        "embeddings": embeddings,
    }
    if (reason := run_in_child("labelmill.model.engines.convert", request)) is not None:
        raise BundleError(
            f"{bundle.reference} ({bundle.architecture}) could not be converted to OpenVINO: {reason}. "
            "Write engine: torch, or choose another architecture."
        )
