"""What the peers have in common: Pillow and torchvision from bytes to pixels, and the network in PyTorch.

Both as their own documentation would have it: torchvision's Resize, CenterCrop and normalisation, channels_last,
inference_mode. Pictures stay uint8 until they are a batch, which is faster than what most of the documentation shows.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torchvision import transforms

from field.trial import Card

__all__ = ["Network", "PictureTransform", "network_of_process"]


class PictureTransform:
    """A picture (bytes, or RGB pixels [H, W, 3]) to uint8 [S, S, 3], as the network's card wants it."""

    def __init__(self, card: Card) -> None:
        bicubic = transforms.InterpolationMode.BICUBIC
        self._transform = transforms.Compose(
            [transforms.Resize(card.resize_px, bicubic), transforms.CenterCrop(card.image_size_px)]
        )

    def __call__(self, picture: bytes | np.ndarray) -> np.ndarray:
        if isinstance(picture, np.ndarray):
            image = Image.fromarray(picture)
        else:
            image = Image.open(io.BytesIO(picture)).convert("RGB")
        return np.asarray(self._transform(image))


class Network:
    """The trained network. Call it with pixels uint8 [B, S, S, 3]; the answers are the names of the best labels.

    With `bfloat16` by autocast, as timm's scripts do with --amp --amp-dtype bfloat16.
    """

    def __init__(self, model: str, *, threads: int, bfloat16: bool = False, compiled_for: int | None = None) -> None:
        torch.set_num_threads(threads)
        card = Card.read(model)
        self.labels = card.labels
        network = timm.create_model(card.architecture.removeprefix("timm/"), num_classes=len(card.labels))
        network.load_state_dict(torch.load(Path(model, "network.pt"), weights_only=True))
        self._network = network.eval().to(memory_format=torch.channels_last)
        mean, std = torch.tensor(card.mean).view(1, 3, 1, 1), torch.tensor(card.std).view(1, 3, 1, 1)
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._batch_size, self._bfloat16 = compiled_for, bfloat16
        self._compiled = torch.compile(self._network, dynamic=False) if compiled_for else self._network

    def __call__(self, pixels_bhwc: np.ndarray | torch.Tensor) -> list[str]:
        pixels = torch.as_tensor(pixels_bhwc).permute(0, 3, 1, 2)  # of BHWC in memory: that is channels_last
        return self.label_normalized(pixels.float() * self._scale + self._shift)

    def normalize(self, pixels_hwc: np.ndarray) -> np.ndarray:
        """One picture as float32 [3, S, S], the form in which documentation hands pictures from stage to stage."""
        pixels = torch.from_numpy(np.array(pixels_hwc)).permute(2, 0, 1)[None].float()
        return (pixels * self._scale + self._shift)[0].contiguous().numpy()

    def label_normalized(self, pixels_bchw: torch.Tensor) -> list[str]:
        pixels = pixels_bchw.contiguous(memory_format=torch.channels_last)
        # Another batch size would be compiled anew, for two minutes: the last, smaller batch goes uncompiled.
        network = self._compiled if len(pixels) == self._batch_size else self._network
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            return [self.labels[index] for index in network(pixels).argmax(dim=1).tolist()]


@cache
def network_of_process(model: str, threads: int, bfloat16: bool) -> Network:
    """One for the life of a process that is given one task after the other, as Spark's Python workers are."""
    return Network(model, threads=threads, bfloat16=bfloat16)
