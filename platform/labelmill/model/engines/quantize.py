"""A network in 8-bit integers: `python -m labelmill.model.engines.quantize REQUEST`, REQUEST being JSON.

Post-training quantization by NNCF (https://github.com/openvinotoolkit/nncf): weights a channel, activations a layer,
their ranges taken from pictures; then the biases are corrected for the error that rounding makes on those pictures.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from labelmill.images.transform import Preprocessing
from labelmill.model.engines.convert import graph_of
from labelmill.model.engines.torch_engine import PixelsToLogits

__all__ = ["quantize"]

_ATTENTION = frozenset({"Softmax", "ScaledDotProductAttention"})  # logits leave a classifier before any softmax


def quantize(module: PixelsToLogits, pixels_bhwc: NDArray[np.uint8], file: Path) -> None:
    """Write the module as a graph that computes in 8-bit integers: `file` (.xml), and its weights beside it (.bin).

    `module` gives logits and pooled features; `pixels_bhwc` [N, S, S, 3] are pictures as it will see them.
    """
    graph = graph_of(module, pixels_bhwc.shape[1])
    has_attention = any(operation.get_type_name() in _ATTENTION for operation in graph.get_ops())
    nncf.set_log_level(logging.ERROR)
    quantized = nncf.quantize(
        graph,
        nncf.Dataset([pixels_bhwc[index : index + 1] for index in range(len(pixels_bhwc))]),
        subset_size=len(pixels_bhwc),
        # Activations with a zero point of their own: SiLU and hard-swish are not symmetric.
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(quantized, file, compress_to_fp16=False)


def main(request: dict[str, Any]) -> None:
    module = PixelsToLogits.load(
        request["architecture"],
        request["num_logits"],
        Preprocessing.from_json(request["preprocessing"]),
        Path(request["weights"]),
        embeddings=True,
    )
    quantize(module, np.load(request["pixels"]), Path(request["file"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
