"""PyTorch: on a GPU as CUDA graphs; in bfloat16 where that is worth it, or asked for. Also the one definition of what
happens between pixels and network, which the OpenVINO graph is converted from."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labelmill.images.transform import Preprocessing
from labelmill.model.bundle import Bundle
from labelmill.model.engines import Outputs, PrecisionName
from labelmill.model.engines.gpu_decoder import can_decode, decode, views
from labelmill.model.engines.precision import PROBE_PICTURES, Comparison, furthest, made_pictures, same_decisions
from labelmill.model.ensemble import Ensemble
from labelmill.model.network import build_network, head_of, load_weights

__all__ = ["PixelsToLogits", "TorchEngine", "TorchOnGpu"]

logger = logging.getLogger(__name__)

_BATCH_SIZES = (32, 64, 128, 256)
_WORTH_DOUBLING = 1.02
_MEASURE_S = 0.1
_PROBE_ON = {"cuda": (PROBE_PICTURES, 128), "cpu": (64, 32)}  # pictures, and how many at once; a core takes its time


class PixelsToLogits(nn.Module):
    """uint8 pixels [B, S, S, 3] to logits [B, L]: normalisation is part of the network, so pixels travel as bytes.

    With `embeddings` it gives logits and the pooled features [B, D] that the network's last layer sees; of an ensemble,
    those of all members.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, *, embeddings: bool = False) -> None:
        super().__init__()
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.network = network
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1))
        self._embeddings = embeddings
        self._seen: list[Tensor] = []
        if embeddings:
            for member in network.members if isinstance(network, Ensemble) else [network]:
                head_of(member).register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))

    @classmethod
    def load(
        cls,
        architecture: str,
        num_logits: int,
        preprocessing: Preprocessing,
        weights: Path,
        *,
        embeddings: bool = False,
    ) -> "PixelsToLogits":
        network = build_network(architecture, num_logits, image_size_px=preprocessing.image_size_px)
        load_weights(network, weights)
        return cls(network, preprocessing, embeddings=embeddings).eval()

    def forward(self, pixels_bhwc: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        # A permuted BHWC tensor is already channels_last in memory, which is the layout convolutions are fastest in.
        logits: Tensor = self.network(pixels_bhwc.permute(0, 3, 1, 2).float() * self.scale + self.shift)
        if not self._embeddings:
            return logits
        features = [seen.mean(dim=(2, 3)) if seen.ndim == 4 else seen for seen in self._seen]
        self._seen.clear()
        return logits, torch.cat(features, dim=1)


class TorchEngine:
    """On the GPU when torch has one, else on the CPU. `num_threads` sets torch's CPU threads for the whole process.

    On a GPU several threads may call it at once, so that one's pictures are decoded while the network sees another's.
    The forward pass is recorded as a CUDA graph, one for each power of two of pictures, when such a batch first comes.
    resnet50 in bfloat16 on an H100, pictures/s, eager and as a graph: 6,800 and 11,300 in batches of 32, 12,500 and
    12,900 in batches of 256.
    """

    name = "torch"

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: PrecisionName = "auto",
        num_threads: int | None = None,
        embeddings: bool = False,
    ) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._preprocessing = bundle.preprocessing
        self.precision = "float32"
        module = PixelsToLogits.load(
            bundle.architecture,
            len(bundle.labels),
            bundle.preprocessing,
            bundle.weights_path(),
            embeddings=embeddings,
        )
        self._module = module.to(self._device)
        self._module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self._one_at_a_time = threading.Lock()  # the module keeps what went into its head until it is asked for it
        self.gpu: TorchOnGpu | None = None
        self._graphs: _Graphs | None = None
        self._largest: int | None = None  # batch that the network is shown at once
        if self._device.type == "cuda":
            self._graphs = _Graphs(self._compute)
        if self._may_take_bfloat16(precision):
            self._compare_bfloat16(bundle, precision)
        if self._device.type == "cuda":
            self._largest = self._measured_batch_size()
            self.gpu = TorchOnGpu([self])

    def _may_take_bfloat16(self, asked: PrecisionName) -> bool:
        if asked == "float32":
            return False
        if self._device.type == "cuda":
            return True
        from labelmill.model.engines.graphs import has_bfloat16  # which knows the CPU

        return has_bfloat16()

    def _compare_bfloat16(self, bundle: Bundle, asked: PrecisionName) -> None:
        """Take it where it is worth it, and the network then answers alike."""
        outputs, rates = {}, {}
        for self.precision in ("float32", "bfloat16"):
            outputs[self.precision], rates[self.precision] = self._probed(*_PROBE_ON[self._device.type])
        full, low = outputs["float32"], outputs["bfloat16"]
        compared = Comparison(
            rates["bfloat16"] / rates["float32"], furthest(full, low), same_decisions(bundle, full[0], low[0])
        )
        if not compared.takes(asked):
            self.precision = "float32"
            say = logger.warning if asked == "bfloat16" else logger.info
            say("%s computes in float32: %s", bundle.reference, compared)

    def _probed(self, count: int, batch_size: int) -> tuple[list[NDArray[np.float32]], float]:
        """Outputs of made pictures, and pictures a second."""
        pictures = torch.from_numpy(made_pictures(count, self._preprocessing.image_size_px)).to(self._device)
        batches = torch.split(pictures, batch_size)
        self._compute(batches[0])
        started = time.perf_counter()
        outputs = [[output.cpu().numpy() for output in self._compute(batch)] for batch in batches]
        rate = count / (time.perf_counter() - started)
        return [np.concatenate(output) for output in zip(*outputs, strict=True)], rate

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self._preprocessing.image_size_px, self._preprocessing.image_size_px, 3

    def _measured_batch_size(self) -> int:
        """From 32 upwards, as long as twice as many pictures at once are clearly faster and fit."""
        best, best_rate = _BATCH_SIZES[0], 0.0
        for size in _BATCH_SIZES:
            try:
                rate = self._rate(torch.zeros(size, *self._shape, dtype=torch.uint8, device=self._device))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                break
            if rate < _WORTH_DOUBLING * best_rate:
                break
            best, best_rate = size, rate
        return best

    def _rate(self, pixels: Tensor) -> float:
        self._run(pixels)
        started, count = time.perf_counter(), 0
        while (spent_s := time.perf_counter() - started) < _MEASURE_S:
            self._run(pixels)
            count += len(pixels)
        return count / spent_s

    def forward(
        self, pixels_bhwc: NDArray[np.uint8] | Tensor
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        pixels = pixels_bhwc if isinstance(pixels_bhwc, Tensor) else torch.from_numpy(pixels_bhwc)
        logits, *features = self._outputs(pixels.to(self._device))
        return logits, features[0] if features else None

    def _outputs(self, pixels: Tensor) -> list[NDArray[np.float32]]:
        largest = self._largest or len(pixels)
        if len(pixels) > largest:
            parts = [self._outputs(pixels[start : start + largest]) for start in range(0, len(pixels), largest)]
            return [np.concatenate(output) for output in zip(*parts, strict=True)]
        try:
            return self._run(pixels)
        except torch.OutOfMemoryError:
            # Others share the GPU, or the network is large: half of it may still fit.
            if len(pixels) == 1:
                raise
            self._largest = 1 << (len(pixels) - 1).bit_length() >> 1
            logger.warning("memory does not hold %d pictures at once: from now on %d", len(pixels), self._largest)
            torch.cuda.empty_cache()
        return self._outputs(pixels)

    def _run(self, pixels: Tensor) -> list[NDArray[np.float32]]:
        return self._graphs(pixels) if self._graphs else [output.numpy() for output in self._compute(pixels)]

    def _compute(self, pixels: Tensor) -> list[Tensor]:
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with self._one_at_a_time, torch.inference_mode(), autocast:
            outputs = self._module(pixels)
        return [output.float() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


class TorchOnGpu:
    """Pictures to the outputs of several networks on one GPU: decoded there, once. Where torch has none it computes the
    same on the CPU."""

    def __init__(self, engines: Sequence[TorchEngine]) -> None:
        self._engines = engines
        self._device = engines[0]._device
        self._own = threading.local()
        self.decodes = can_decode(self._device)

    def forward(
        self, jpegs: NDArray[np.uint8], sizes_bytes: Sequence[int], pixels_bhwc: Sequence[NDArray[np.uint8]]
    ) -> list[Outputs] | None:
        """As `Gpu.forward`."""
        with self._own_stream():
            decoded = decode(jpegs, sizes_bytes, self._device) if sizes_bytes else []
            if decoded is None:
                return None
            outputs = []
            for engine, elsewhere in zip(self._engines, pixels_bhwc, strict=True):
                parts = [views(decoded, engine._preprocessing)] if decoded else []
                parts += [torch.from_numpy(np.array(elsewhere)).to(self._device)] if len(elsewhere) else []
                outputs.append(engine.forward(torch.cat(parts)))
            return outputs

    def _own_stream(self) -> AbstractContextManager[Any]:
        """What one thread has asked of the GPU does not wait for what another has."""
        if self._device.type == "cpu":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)


class _Graphs:
    """A computation on any number of pictures, recorded once for each power of two; one thread at a time."""

    def __init__(self, compute: Callable[[Tensor], list[Tensor]]) -> None:
        self._compute = compute
        self._memory = torch.cuda.graph_pool_handle()
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]] = {}
        self._lock = threading.Lock()
        self._free = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def __call__(self, pixels: Tensor) -> list[NDArray[np.float32]]:
        count = len(pixels)
        with self._lock:
            torch.cuda.current_stream().wait_event(self._free)
            graph, inputs, outputs = self._graph(pixels)
            inputs[:count].copy_(pixels)
            graph.replay()
            # What stands in the rows beyond is of no matter. The graphs write to the same memory: these are copies.
            own = [output[:count].to("cpu", non_blocking=True) for output in outputs]
            self._free.record()
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        done.synchronize()
        return [output.numpy() for output in own]

    def _graph(self, pixels: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]:
        size = 1 << (len(pixels) - 1).bit_length()
        if size not in self._recorded:
            self._recorded[size] = self._record(pixels.new_zeros(size, *pixels.shape[1:]))
        return self._recorded[size]

    def _record(self, inputs: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]:
        torch.cuda.synchronize()
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(beside):  # libraries choose their algorithms, and may not while it is recorded
            for _ in range(2):
                self._compute(inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            outputs = self._compute(inputs)
        return graph, inputs, outputs
