"""What computes logits from pixels. Each engine is loaded once, then called with batch after batch, one at a time."""

import logging
import os
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from labelmill.allowance import cores_here
from labelmill.errors import BundleError
from labelmill.model.bundle import Bundle

__all__ = [
    "Engine",
    "EngineName",
    "Gpu",
    "Outputs",
    "PrecisionName",
    "choose_engine",
    "load_engine",
]

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "openvino", "torch"]
PrecisionName = Literal["auto", "float32", "bfloat16"]
"""What is asked of an engine. It computes in bfloat16 only where the processor does so natively and the network's
answers then stay within 2e-2 of those in float32; and with "auto" only where it is at least 1.3 times as fast and the
labels of at least 99.5% of the pictures that were tried are the same. What a quantized bundle carries stays in 8-bit
integers."""


Outputs = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Logits [B, labels]; and, from an engine that was loaded with `embeddings`, the pooled features [B, D] that the
network's last layer sees."""


class Gpu(Protocol):
    """A GPU that shows pictures to the networks of one or several engines, and perhaps `decodes` them first."""

    @property
    def decodes(self) -> bool: ...

    def forward(
        self, jpegs: NDArray[np.uint8], sizes_bytes: Sequence[int], pixels_bhwc: Sequence[NDArray[np.uint8]]
    ) -> list[Outputs] | None:
        """Of each network: outputs for the JPEGs whose bytes stand one after another in `jpegs`, and then for the
        pixels, one array a network, that were made elsewhere. None where a JPEG cannot be decoded there."""
        ...


class Engine(Protocol):
    """`name` and `precision` ("float32", "bfloat16", "int8") belong to what decides an answer."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def gpu(self) -> Gpu | None:
        """Where the engine computes, if pictures can be decoded there too."""
        ...

    def forward(self, pixels_bhwc: NDArray[np.uint8]) -> Outputs:
        """Of pixels [B, S, S, 3] as the bundle's preprocessing made them, any B."""
        ...


def choose_engine(bundle: Bundle, precision: PrecisionName = "auto") -> Literal["openvino", "torch"]:
    """What "auto" means for a bundle in this process.

    torch where CUDA_VISIBLE_DEVICES gives it a GPU (Ray sets it for a worker that asked for one): a GPU that merely
    sits in the machine is not taken, since sixteen CPU workers would all take it. On the CPU the engine that was faster
    on this machine when the bundle was converted; torch also where OpenVINO cannot take the network.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") not in ("", "-1", "NoDevFiles"):
        return "torch"
    from labelmill.model.engines.graphs import faster_engine

    try:
        return faster_engine(bundle, precision)
    except BundleError as exc:
        logger.warning("labelling %s by torch: %s", bundle.reference, exc)
        return "torch"


def load_engine(
    bundle: Bundle,
    engine: EngineName = "auto",
    *,
    precision: PrecisionName = "auto",
    num_threads: int | None = None,
    embeddings: bool = False,
) -> Engine:
    """The engine with the bundle's weights in it. `num_threads` bounds its CPU threads; None leaves it all cores that
    this process may use.

    Only the chosen engine's libraries are imported: openvino needs neither torch nor timm in this process.
    """
    if num_threads is None and cores_here() < len(os.sched_getaffinity(0)):
        num_threads = cores_here()  # both libraries look where they may run, and not for how much of the time
    if (choose_engine(bundle, precision) if engine == "auto" else engine) == "openvino":
        from labelmill.model.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, precision=precision, num_threads=num_threads, embeddings=embeddings)
    from labelmill.model.engines.torch_engine import TorchEngine

    return TorchEngine(bundle, precision=precision, num_threads=num_threads, embeddings=embeddings)
