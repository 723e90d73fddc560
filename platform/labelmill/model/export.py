"""A bundle as a graph that others run: uint8 pixels in, calibrated confidences out, nothing to retype.

Normalisation and calibration are part of the graph. What stands before it, cutting a picture to its square of pixels,
and behind it, labels and thresholds, lies beside it in `model.json`.
"""

import importlib.util
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops
from torch import Tensor, nn

from labelmill.errors import BundleError, StorageError, first_line
from labelmill.model.bundle import Bundle
from labelmill.model.calibration import lines
from labelmill.model.engines.convert import graph_of
from labelmill.model.engines.openvino_engine import compile_graph
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.labeler import Labeler
from labelmill.model.quantized import int8_graph, is_quantized

__all__ = ["Export", "GraphFormat", "export_bundle"]

GraphFormat = Literal["onnx", "openvino"]

CARD_NAME = "model.json"
_GRAPH_NAMES: dict[GraphFormat, str] = {"onnx": "model.onnx", "openvino": "model.xml"}
_TOLERANCE = 1e-3
_CHECKED_PICTURES = 4
_ONE_FILE_BYTES = 2**31 - 2**24  # what a protobuf may hold; larger weights go into a file beside it


@dataclass(frozen=True)
class Export:
    """`difference` is the largest between a confidence of the graph and the bundle's, over the pictures checked."""

    graph: Path
    difference: float


def export_bundle(bundle: Bundle, folder: Path, form: GraphFormat) -> Export:
    """Write the bundle into an empty or new folder, provided it then answers as the bundle does, within 1e-3.

    Input `pixels`, uint8 [batch, S, S, 3], RGB; output `confidences`, float32 [batch, labels]. BundleError: the network
    cannot be written in that form, or answers otherwise; nothing is left behind. StorageError: the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"expected an empty or a new folder to export to, and {folder} is not: choose another.")
    if form == "onnx" and importlib.util.find_spec("onnxscript") is None:
        raise BundleError("an export to ONNX needs two more packages: pip install 'labelmill[export]'.")
    if form == "onnx" and is_quantized(bundle):
        raise BundleError(
            f"{bundle.reference} answers in OpenVINO's 8-bit integers, which ONNX does not know. "
            "Write --format openvino, or export the model that it was made of."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as name:
        aside = Path(name)
        graph = aside / _GRAPH_NAMES[form]
        try:
            (_write_onnx if form == "onnx" else _write_openvino)(bundle, graph)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as exc:
            raise BundleError(
                f"{bundle.reference} ({bundle.architecture}) cannot be written as {form}: {first_line(exc)}. "
                "Try the other format, or choose another architecture."
            ) from exc
        difference = _check(bundle, graph, form)
        (aside / CARD_NAME).write_text(json.dumps(_card(bundle), indent=1, ensure_ascii=False), encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for path in aside.iterdir():
            path.rename(folder / path.name)
    return Export(folder / _GRAPH_NAMES[form], difference)


class _PixelsToConfidences(nn.Module):
    """What a Labeler computes between pixels and confidences."""

    slopes: Tensor
    intercepts: Tensor

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.logits = _logits(bundle)
        slopes, intercepts = lines(bundle.calibration, len(bundle.labels))
        self.register_buffer("slopes", torch.tensor(slopes, dtype=torch.float32))
        self.register_buffer("intercepts", torch.tensor(intercepts, dtype=torch.float32))
        self._exclusive = bundle.task == "multi_class"

    def forward(self, pixels_bhwc: Tensor) -> Tensor:
        logits: Tensor = self.logits(pixels_bhwc) * self.slopes + self.intercepts
        return logits.softmax(dim=1) if self._exclusive else logits.sigmoid()


def _write_onnx(bundle: Bundle, path: Path) -> None:
    module = _PixelsToConfidences(bundle).eval()
    size_bytes = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    program = torch.onnx.export(
        module,
        (_example(bundle),),
        dynamo=True,
        input_names=["pixels"],
        output_names=["confidences"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["labelmill"] = json.dumps(_card(bundle))
    program.save(path, external_data=size_bytes > _ONE_FILE_BYTES)


def _write_openvino(bundle: Bundle, path: Path) -> None:
    if is_quantized(bundle):
        graph = ov.Core().read_model(int8_graph(bundle))
    else:
        graph = graph_of(_logits(bundle), bundle.preprocessing.image_size_px)
    slopes, intercepts = lines(bundle.calibration, len(bundle.labels))
    logits = graph.get_results()[0].input_value(0)
    calibrated = ops.add(ops.multiply(logits, slopes), intercepts)
    confidences = ops.softmax(calibrated, 1) if bundle.task == "multi_class" else ops.sigmoid(calibrated)
    confidences.output(0).set_names({"confidences"})
    graph.inputs[0].set_names({"pixels"})
    graph = ov.Model([confidences], graph.get_parameters(), bundle.reference)
    graph.set_rt_info(json.dumps(_card(bundle)), "labelmill")
    ov.save_model(graph, path, compress_to_fp16=False)


def _logits(bundle: Bundle) -> PixelsToLogits:
    return PixelsToLogits.load(bundle.architecture, len(bundle.labels), bundle.preprocessing, bundle.weights_path())


def _example(bundle: Bundle) -> Tensor:
    size_px = bundle.preprocessing.image_size_px
    return torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8)


def _check(bundle: Bundle, graph: Path, form: GraphFormat) -> float:
    """Read the file as a stranger would, and ask it and the bundle the same. OpenVINO reads both formats."""
    size_px = bundle.preprocessing.image_size_px
    pixels = np.random.default_rng(0).integers(0, 256, (_CHECKED_PICTURES, size_px, size_px, 3), dtype=np.uint8)
    expected = Labeler(bundle, "openvino" if is_quantized(bundle) else "torch", precision="float32").confidences(pixels)
    difference = max(_difference(graph, pixels[:count], expected[:count]) for count in (_CHECKED_PICTURES, 1))
    if not difference <= _TOLERANCE:
        raise BundleError(
            f"{bundle.reference} as {form} answers otherwise than the bundle: a confidence differs by "
            f"{difference:.2g}, and {_TOLERANCE:g} is allowed. Try the other format, or choose another architecture."
        )
    return difference


def _difference(graph: Path, pixels: NDArray[np.uint8], expected: NDArray[np.float32]) -> float:
    found = compile_graph(graph, len(pixels), None)([pixels])[0]
    return float(np.abs(found - expected).max())


def _card(bundle: Bundle) -> dict[str, Any]:
    preprocessing = bundle.preprocessing
    size_px = preprocessing.image_size_px
    return {
        "model": bundle.reference,
        "digest": bundle.digest,
        "task": bundle.task,
        "input": {
            "name": "pixels",
            "shape": ["batch", size_px, size_px, 3],
            "type": "uint8",
            "channels": "RGB, upright",
            "resize_shorter_side_to_px": preprocessing.resize_px,
            "resampling": "bicubic, antialiased",
            "crop_centre_px": size_px,
        },
        "output": {"name": "confidences", "shape": ["batch", len(bundle.labels)], "type": "float32"},
        "labels": list(bundle.labels),
        "thresholds": list(bundle.thresholds) or None,
    }
