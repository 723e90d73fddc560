"""approach: average. The weights of published models of one architecture, averaged: a soup of models.

Networks that were fine-tuned from one starting point lie in one valley of the loss, and their mean is often better than
each of them, at the cost of one (Wortsman et al., Model soups, 2022).
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from labelmill.dataset import TrainingSet
from labelmill.errors import DataError, SpecError
from labelmill.evaluate.answers import answer, measure
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.labeler import Labeler
from labelmill.model.network import save_weights
from labelmill.train.candidate import Candidate
from labelmill.train.feed.sample import sample_pixels
from labelmill.train.job import Job
from labelmill.train.progress import METRIC_BY_TASK
from labelmill.train.published import changed, published_models

__all__ = ["average_states", "make", "renew_statistics"]

logger = logging.getLogger(__name__)

_NUM_PICTURES = 1024
_BATCH_SIZE = 64


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """The mean of the models that `average.models` names, or of those among them that help.

    SpecError: they are not of one architecture and preprocessing. DataError: none helps the best of them.
    """
    wanted = job.spec.average
    assert wanted is not None
    bundles = published_models(job, wanted.models)
    _check_alike(bundles)
    mean = _Mean(job, training_set)
    alone = {bundle.reference: mean.score(bundle) for bundle in bundles}
    chosen = bundles if wanted.recipe == "uniform" else _helpful(bundles, alone, mean)
    mean.write(chosen, draft)
    findings = {
        "metric": METRIC_BY_TASK[job.spec.task],
        "models": alone,
        "averaged": [bundle.reference for bundle in chosen],
    }
    return Candidate(bundles[0].architecture, bundles[0].preprocessing, findings={"average": findings})


def _check_alike(bundles: Sequence[Bundle]) -> None:
    first = bundles[0]
    for bundle in bundles[1:]:
        for what in ("architecture", "preprocessing"):
            own, other = getattr(first, what), getattr(bundle, what)
            if own != other:
                raise SpecError(
                    f"average.models: only weights of one network can be averaged, and {first.reference} and "
                    f"{bundle.reference} differ in their {what} ({own}, {other}). Set approach: ensemble to have them "
                    "answer together."
                )


def _helpful(bundles: Sequence[Bundle], alone: dict[str, float], mean: "_Mean") -> list[Bundle]:
    """From the best on, each model that does not make the mean worse on the validation pictures."""
    first, *others = sorted(bundles, key=lambda bundle: -alone[bundle.reference])
    chosen, best = [first], alone[first.reference]
    for bundle in others:
        with TemporaryDirectory(prefix="labelmill-average-") as folder:
            mean.write([*chosen, bundle], Path(folder))
            value = mean.score(changed(first, Path(folder)))
        logger.info("with %s: %.4f, without it %.4f", bundle.reference, value, best)
        if value >= best:
            chosen, best = [*chosen, bundle], value
    if len(chosen) == 1:
        raise DataError(
            f"no other model helps {first.reference} ({best:.4f} on the validation pictures): their mean would be that "
            "model again, and nothing is published. Average models that started from one, or set approach: ensemble."
        )
    return chosen


class _Mean:
    """Averages models and measures the result."""

    def __init__(self, job: Job, training_set: TrainingSet) -> None:
        self._job, self._training_set = job, training_set
        self._pixels: NDArray[np.uint8] | None = None  # [N, S, S, 3], where a network has statistics to renew

    def score(self, bundle: Bundle) -> float:
        """The metric that chooses, on the validation pictures. By torch: to convert each trial would take longer."""
        labeler = Labeler(bundle, "torch", max_pixels=self._job.spec.max_pixels)
        value = measure(bundle, answer(labeler, self._training_set.validation))[METRIC_BY_TASK[bundle.task]]
        return float(value or 0.0)

    def write(self, bundles: Sequence[Bundle], folder: Path) -> None:
        """The mean of the bundles' weights, as the weights file of `folder`."""
        file, first = folder / WEIGHTS_NAME, bundles[0]
        save_file(average_states([load_file(bundle.weights_path()) for bundle in bundles]), file)
        module = PixelsToLogits.load(first.architecture, len(first.labels), first.preprocessing, file)
        if any(isinstance(layer, _BatchNorm) for layer in module.modules()):
            if self._pixels is None:
                examples, limit = self._training_set.train, self._job.spec.max_pixels
                self._pixels = sample_pixels(examples, first.preprocessing, _NUM_PICTURES, limit)
            renew_statistics(module, self._pixels)
            save_weights(module.network, file)


def average_states(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor; of whole numbers (how many batches were seen) the first."""
    return {
        name: torch.stack([state[name].float() for state in states]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def renew_statistics(module: PixelsToLogits, pixels_bhwc: NDArray[np.uint8]) -> None:
    """Take the running statistics of batch normalisation anew, over these pictures: they do not average as weights do
    (Izmailov et al., Averaging Weights Leads to Wider Optima, 2018)."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    with torch.inference_mode():
        for start in range(0, len(pixels_bhwc), _BATCH_SIZE):
            module(torch.from_numpy(pixels_bhwc[start : start + _BATCH_SIZE]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
