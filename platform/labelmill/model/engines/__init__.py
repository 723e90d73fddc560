"""What computes logits from pixels. Each engine is loaded once, then called with batch after batch, one at a time."""

import os
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from labelmill.model.bundle import Bundle

__all__ = ["Engine", "EngineName", "choose_engine", "load_engine"]

EngineName = Literal["auto", "openvino", "torch"]


class Engine(Protocol):
    """`name` and `precision` ("float32", "bfloat16") belong to what decides an answer."""

    name: str
    precision: str

    def logits(self, pixels_bhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[B, S, S, 3] as the bundle's preprocessing made them, any B, to [B, labels]."""
        ...


def choose_engine() -> Literal["openvino", "torch"]:
    """torch where CUDA_VISIBLE_DEVICES gives this process a GPU (Ray sets it for a worker that asked for one), else
    openvino. A GPU that merely sits in the machine is not taken: sixteen CPU workers would all take it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return "torch" if given not in ("", "-1", "NoDevFiles") else "openvino"


def load_engine(bundle: Bundle, engine: EngineName = "auto", *, num_threads: int | None = None) -> Engine:
    """The engine with the bundle's weights in it. `num_threads` bounds its CPU threads; None leaves it all cores.

    Only the chosen engine's libraries are imported: openvino needs neither torch nor timm in this process.
    """
    if (choose_engine() if engine == "auto" else engine) == "openvino":
        from labelmill.model.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, num_threads=num_threads)
    from labelmill.model.engines.torch_engine import TorchEngine

    return TorchEngine(bundle, num_threads=num_threads)
