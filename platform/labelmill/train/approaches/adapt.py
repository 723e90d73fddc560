"""A published version for pictures of another kind: the statistics of its normalisation are estimated anew on them.

No label is needed and no weight is learnt. Adaptive batch normalisation: Li et al., 2016, Revisiting Batch
Normalization For Practical Domain Adaptation; the mixture with the old statistics: Schneider et al., 2020, Improving
robustness against common corruptions by covariate shift adaptation.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labelmill.dataset import Examples, TrainingSet
from labelmill.errors import DataError, SpecError
from labelmill.evaluate.answers import answer, measure
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.labeler import Labeler
from labelmill.model.network import build_network, load_weights, save_weights
from labelmill.spec import Adapt
from labelmill.train.candidate import Candidate
from labelmill.train.feed.feed import Batch, Feed
from labelmill.train.job import Job
from labelmill.train.origins import list_unlabelled
from labelmill.train.progress import METRIC_BY_TASK
from labelmill.train.published import changed, published_models

__all__ = ["make"]

logger = logging.getLogger(__name__)


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """The model that `adapt.model` names, with the statistics of `adapt.images`; `data` only measures it.

    `findings` say how good it was before, on the pictures that measure the result. SpecError: a network without batch
    normalisation. DataError: other labels, no pictures, or too many that cannot be read.
    """
    adapt = job.spec.adapt
    assert adapt is not None
    [bundle] = published_models(job, [adapt.model])
    preprocessing = bundle.preprocessing
    network = build_network(bundle.architecture, len(bundle.labels), image_size_px=preprocessing.image_size_px)
    load_weights(network, bundle.weights_path())
    layers = _normalisations(network, bundle)
    pictures = _draw(adapt, len(bundle.labels))
    logger.info("adapting %s to %d pictures of %s", bundle.reference, len(pictures), adapt.images)
    feed = Feed.alone(job.spec, preprocessing, pictures, num_pictures=len(pictures))
    old = [_statistics(layer) for layer in layers]
    num_seen = _estimate(PixelsToLogits(network, preprocessing), layers, feed.validation_batches())
    _mix(layers, old, share_of_old=adapt.prior_pictures / (adapt.prior_pictures + num_seen))
    save_weights(network, draft / WEIGHTS_NAME)
    findings = {
        "model": bundle.reference,
        "num_pictures": num_seen,
        "num_layers": len(layers),
        "metric": METRIC_BY_TASK[bundle.task],
        "before": _headline(bundle, job, training_set),
        "after": _headline(changed(bundle, draft), job, training_set),
    }
    return Candidate(bundle.architecture, preprocessing, findings={"adapt": findings}, unreadable=feed.unreadable)


def _headline(bundle: Bundle, job: Job, training_set: TrainingSet) -> float | None:
    labeler = Labeler(bundle, max_pixels=job.spec.max_pixels)
    value: float | None = measure(bundle, answer(labeler, training_set.measured))[METRIC_BY_TASK[bundle.task]]
    return value


def _normalisations(network: nn.Module, bundle: Bundle) -> list[_BatchNorm]:
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not layers:
        raise SpecError(
            f"{bundle.reference} is a {bundle.architecture}, which has no batch normalisation, so there are no "
            "statistics to estimate anew. Choose approach: fine_tune with labelled pictures of the target."
        )
    return layers


def _draw(adapt: Adapt, num_labels: int) -> Examples:
    listed = list_unlabelled(adapt.images)
    if len(listed) < 2:
        raise DataError(f"adapt.images: {len(listed)} pictures in {adapt.images}; expected at least two.")
    rng = np.random.default_rng(adapt.seed)
    drawn = listed.take(rng.permutation(len(listed))[: adapt.max_pictures])
    uris, etags = (drawn.column(name).combine_chunks() for name in ("uri", "etag"))
    return Examples(uris, etags, np.zeros((len(drawn), num_labels), dtype=np.uint8))


@torch.no_grad()
def _estimate(module: PixelsToLogits, layers: list[_BatchNorm], batches: Iterator[Batch]) -> int:
    """Fill the layers with the mean over the batches, and say how many pictures those held. A last batch that is not
    full would count as much as a full one, and is left out."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.eval().to(device)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean of all batches
        layer.train()
    size = count = 0
    for pixels_bhwc, _ in batches:
        if len(pixels_bhwc) >= max(2, size):
            module(torch.from_numpy(pixels_bhwc).to(device))
            size, count = len(pixels_bhwc), count + len(pixels_bhwc)
    if not count:
        raise DataError("fewer than two of the pictures to adapt to can be read: correct adapt.images.")
    module.eval().cpu()
    return count


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None and layer.running_var is not None
    return layer.running_mean.clone(), layer.running_var.clone()


def _mix(layers: list[_BatchNorm], old: list[tuple[Tensor, Tensor]], share_of_old: float) -> None:
    for layer, (old_mean, old_var) in zip(layers, old, strict=True):
        mean, var = _statistics(layer)
        layer.running_mean = torch.lerp(mean, old_mean, share_of_old)
        layer.running_var = torch.lerp(var, old_var, share_of_old)
