"""A bundle's network as an OpenVINO graph: `python -m labelmill.model.engines.convert REQUEST`, REQUEST being JSON.

Run in a process of its own, because importing torch and timm costs 4 to 5 s and 700 MB, which a labelling worker on a
CPU need not pay. The graph counts only when this has ended well: it is compared with the network once it is written.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray

from labelmill.errors import BundleError
from labelmill.images.transform import Preprocessing
from labelmill.model.engines.child import untold
from labelmill.model.engines.graphs import BFLOAT16_SPEED, GRAPH_NAME, PROBE_NAME, SPEEDS_NAME, has_bfloat16
from labelmill.model.engines.openvino_engine import BATCH_SIZE, compile_graph
from labelmill.model.engines.precision import PROBE_PICTURES, TOLERANCE, furthest, made_pictures
from labelmill.model.engines.torch_engine import PixelsToLogits

__all__ = ["convert", "graph_of"]

# Of the largest logit: what float32 arithmetic in another order may differ by in a deep network.
_TOLERANCE = 1e-3
_MEASURE_S = 0.3
_PROBE_S = 20.0
_PRECISIONS = ("float32", "bfloat16")


def convert(module: PixelsToLogits, image_size_px: int, folder: Path) -> None:
    """Write the module as a float32 graph into an empty folder; and beside it how fast either is here, in pictures a
    second on one thread; in bfloat16, too, where this CPU has it and the answers stay near enough. BundleError: the
    graph does not compute the same as the module."""
    shape = (image_size_px, image_size_px, 3)
    graph = graph_of(module, image_size_px)
    file = folder / GRAPH_NAME
    ov.save_model(graph, file, compress_to_fp16=False)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, *shape), dtype=np.uint8)
    expected = _outputs(module, pixels)
    if (difference := _difference(expected, file, pixels)) > _TOLERANCE:
        raise BundleError(f"the converted graph answers otherwise than torch (by {difference:.3g})")
    low = has_bfloat16() and _difference(expected, file, pixels, bfloat16=True) <= TOLERANCE
    if low:
        np.savez(folder / PROBE_NAME, allow_pickle=False, **_probe(file, image_size_px))
    (folder / SPEEDS_NAME).write_text(json.dumps(_speeds(module, file, pixels, low=low)))


def graph_of(module: PixelsToLogits, image_size_px: int) -> ov.Model:
    """The module as a float32 graph that takes any number of pictures, uint8 [B, S, S, 3]."""
    shape = (image_size_px, image_size_px, 3)
    example = torch.zeros(2, *shape, dtype=torch.uint8)
    # torchvision's transformers would leave a fused operator that OpenVINO does not know.
    torch.backends.mha.set_fastpath_enabled(False)
    with untold():
        return ov.convert_model(module, example_input=example, input=[(-1, *shape)])


def _difference(
    expected: list[NDArray[np.float32]], graph: Path, pixels: NDArray[np.uint8], *, bfloat16: bool = False
) -> float:
    """Of the graph's outputs from those expected, in batches of both sizes."""
    differences = []
    for batch_size in (BATCH_SIZE, 1):
        found = compile_graph(graph, batch_size, None, bfloat16=bfloat16)([pixels[:batch_size]])
        wanted = [output[:batch_size] for output in expected]
        differences.append(furthest(wanted, [found[output] for output in range(len(expected))]))
    return max(differences)


def _probe(graph: Path, image_size_px: int) -> dict[str, NDArray[np.float32]]:
    """Logits of as many made pictures as both precisions see within a bounded time, which is all for most networks."""
    networks = {name: compile_graph(graph, BATCH_SIZE, None, bfloat16=name == "bfloat16") for name in _PRECISIONS}
    logits: dict[str, list[NDArray[np.float32]]] = {name: [] for name in networks}
    until = time.perf_counter() + _PROBE_S
    pictures = made_pictures(PROBE_PICTURES, image_size_px)
    for start in range(0, PROBE_PICTURES, BATCH_SIZE):
        for name, network in networks.items():
            logits[name].append(network([pictures[start : start + BATCH_SIZE]])[0].copy())
        if time.perf_counter() > until:
            break
    return {name: np.concatenate(found) for name, found in logits.items()}


def _speeds(module: PixelsToLogits, graph: Path, pixels: NDArray[np.uint8], *, low: bool) -> dict[str, float]:
    blank = np.zeros_like(pixels)
    torch.set_num_threads(1)
    module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    speeds = {"openvino": _speed(graph, blank), "torch": BATCH_SIZE / _fastest_s(lambda: _outputs(module, blank))}
    return speeds | ({BFLOAT16_SPEED: _speed(graph, blank, bfloat16=True)} if low else {})


def _speed(graph: Path, pixels: NDArray[np.uint8], *, bfloat16: bool = False) -> float:
    compiled = compile_graph(graph, BATCH_SIZE, 1, bfloat16=bfloat16)
    return BATCH_SIZE / _fastest_s(lambda: compiled([pixels]))


def _fastest_s(run: Callable[[], object]) -> float:
    """Of a few: what else this machine does can only make a run slower."""
    times_s: list[float] = []
    until = time.perf_counter() + _MEASURE_S
    while len(times_s) < 2 or time.perf_counter() < until:
        started = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - started)
    return min(times_s)


def _outputs(module: PixelsToLogits, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        outputs = module(torch.from_numpy(pixels))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def main(request: dict[str, Any]) -> None:
    preprocessing = Preprocessing.from_json(request["preprocessing"])
    module = PixelsToLogits.load(
        request["architecture"],
        request["num_logits"],
        preprocessing,
        Path(request["weights"]),
        embeddings=request["embeddings"],
    )
    convert(module, preprocessing.image_size_px, Path(request["folder"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
