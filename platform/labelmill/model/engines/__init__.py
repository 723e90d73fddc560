"""What computes logits from pixels. Each engine is loaded once, then called with batch after batch, one at a time."""

import logging
import os
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import BundleError
from labelmill.model.bundle import Bundle

__all__ = ["Engine", "EngineName", "choose_engine", "load_engine"]

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "openvino", "torch"]


class Engine(Protocol):
    """`name` and `precision` ("float32", "bfloat16", "int8") belong to what decides an answer."""

    name: str
    precision: str

    def forward(self, pixels_bhwc: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits [B, labels] of pixels [B, S, S, 3] as the bundle's preprocessing made them, any B; and, from an engine
        that was loaded with `embeddings`, the pooled features [B, D] that the network's last layer sees."""
        ...


def choose_engine(bundle: Bundle) -> Literal["openvino", "torch"]:
    """What "auto" means for a bundle in this process.

    torch where CUDA_VISIBLE_DEVICES gives it a GPU (Ray sets it for a worker that asked for one): a GPU that merely
    sits in the machine is not taken, since sixteen CPU workers would all take it. On the CPU the engine that was faster
    on this machine when the bundle was converted; torch also where OpenVINO cannot take the network.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") not in ("", "-1", "NoDevFiles"):
        return "torch"
    from labelmill.model.engines.openvino_engine import faster_engine

    try:
        return faster_engine(bundle)
    except BundleError as exc:
        logger.warning("labelling %s by torch: %s", bundle.reference, exc)
        return "torch"


def load_engine(
    bundle: Bundle, engine: EngineName = "auto", *, num_threads: int | None = None, embeddings: bool = False
) -> Engine:
    """The engine with the bundle's weights in it. `num_threads` bounds its CPU threads; None leaves it all cores.

    Only the chosen engine's libraries are imported: openvino needs neither torch nor timm in this process.
    """
    if (choose_engine(bundle) if engine == "auto" else engine) == "openvino":
        from labelmill.model.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, num_threads=num_threads, embeddings=embeddings)
    from labelmill.model.engines.torch_engine import TorchEngine

    return TorchEngine(bundle, num_threads=num_threads, embeddings=embeddings)
