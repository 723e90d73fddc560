"""Distillation: published models teach the network while it trains.

Beside the labels it learns the teachers' softened confidences (Hinton, Vinyals & Dean, Distilling the Knowledge in a
Neural Network, 2015). They answer about the very pixels that the network sees, whatever was cropped, mirrored or mixed
(Beyer et al., Knowledge Distillation: A Good Teacher Is Patient and Consistent, 2022).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from labelmill.images.transform import Preprocessing
from labelmill.model.bundle import Bundle
from labelmill.model.engines import load_engine
from labelmill.train.job import Job
from labelmill.train.loop.losses import Objective
from labelmill.train.published import published_models

__all__ = ["Teachers", "distance", "taught"]


def taught(job: Job, objective: Objective, preprocessing: Preprocessing) -> Objective:
    """The objective with the teachers' part in it, as the spec's `distill` says; without that, as it is.

    DataError: a teacher answers another question. BundleError, RegistryError: it cannot be loaded.
    """
    distill = job.spec.distill
    if distill is None:
        return objective
    teachers = Teachers(published_models(job, distill.teachers), preprocessing)
    task, temperature, weight = job.spec.task, float(distill.temperature), float(distill.weight)

    def taught_objective(logits: Tensor, targets: Tensor, pixels: Tensor) -> Tensor:
        soft = distance(task, logits / temperature, teachers.confidences(task, pixels, temperature))
        # Softened, gradients are smaller by the square of the temperature.
        return (1 - weight) * objective(logits, targets, pixels) + weight * temperature**2 * soft

    return taught_objective


class Teachers:
    """Published models, loaded as for labelling: on a CPU by OpenVINO, which takes a third of torch's time.

    `preprocessing` is that of the pixels which they will be asked about.
    """

    def __init__(self, bundles: Sequence[Bundle], preprocessing: Preprocessing) -> None:
        self._engines = [load_engine(bundle, num_threads=torch.get_num_threads()) for bundle in bundles]
        self._sizes_px = [bundle.preprocessing.image_size_px for bundle in bundles]
        self._mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)

    def confidences(self, task: str, pixels: Tensor, temperature: float) -> Tensor:
        """The mean of the teachers' softened confidences [B, L] about normalised pixels [B, 3, S, S]."""
        levels = (pixels.detach() * self._std.to(pixels.device) + self._mean.to(pixels.device)) * 255
        given = []
        for engine, size_px in zip(self._engines, self._sizes_px, strict=True):
            logits = torch.from_numpy(engine.forward(_as_picture(levels, size_px))[0]).to(pixels.device) / temperature
            given.append(logits.softmax(dim=1) if task == "multi_class" else logits.sigmoid())
        return torch.stack(given).mean(dim=0)


def distance(task: str, logits: Tensor, confidences: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a batch, from the confidences [B, L] of `logits` to the given ones, summed over
    the pictures; where each label stands alone its mean over the labels."""
    if task == "multi_class":
        return functional.kl_div(logits.log_softmax(dim=1), confidences, reduction="sum")
    crossed = functional.binary_cross_entropy_with_logits(logits, confidences, reduction="none")
    entropy: Tensor = torch.special.entr(confidences) + torch.special.entr(1 - confidences)
    return (crossed - entropy).mean(dim=1).sum()


def _as_picture(levels: Tensor, size_px: int) -> NDArray[np.uint8]:
    """Levels [B, 3, S, S] from 0 to 255 as an engine takes them: uint8 [B, size_px, size_px, 3]."""
    if levels.shape[-1] != size_px:
        levels = functional.interpolate(levels, (size_px, size_px), mode="bilinear", antialias=True)
    pixels: NDArray[np.uint8] = (
        levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    )
    return pixels
