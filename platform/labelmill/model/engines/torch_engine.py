"""PyTorch: bfloat16 autocast on a GPU, float32 on the CPU. Also the one definition of what happens between pixels and
network, which the OpenVINO graph is converted from."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labelmill.images.transform import Preprocessing
from labelmill.model.bundle import Bundle
from labelmill.model.ensemble import Ensemble
from labelmill.model.network import build_network, head_of, load_weights

__all__ = ["PixelsToLogits", "TorchEngine"]


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
    """On the GPU when torch has one, else on the CPU. `num_threads` sets torch's CPU threads for the whole process."""

    name = "torch"

    def __init__(self, bundle: Bundle, *, num_threads: int | None = None, embeddings: bool = False) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = "bfloat16" if self._device.type == "cuda" else "float32"
        module = PixelsToLogits.load(
            bundle.architecture,
            len(bundle.labels),
            bundle.preprocessing,
            bundle.weights_path(),
            embeddings=embeddings,
        )
        self._module = module.to(self._device)
        self._module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    def forward(self, pixels_bhwc: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        logits, *features = self._outputs(pixels_bhwc)
        return logits, features[0] if features else None

    def _outputs(self, pixels_bhwc: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        try:
            return self._run(pixels_bhwc)
        except torch.OutOfMemoryError:
            # Others share the GPU, or the batch was chosen too large: half of it may still fit.
            half = len(pixels_bhwc) // 2
            if not half:
                raise
            torch.cuda.empty_cache()
        halves = zip(self._outputs(pixels_bhwc[:half]), self._outputs(pixels_bhwc[half:]), strict=True)
        return [np.concatenate(pair) for pair in halves]

    def _run(self, pixels_bhwc: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        on_gpu = self._device.type == "cuda"
        pixels = torch.from_numpy(pixels_bhwc)
        if on_gpu:
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
            outputs = self._module(pixels)
        return [output.float().cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
