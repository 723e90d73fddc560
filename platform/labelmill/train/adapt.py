"""A published version for pictures of another kind: the statistics of its normalisation are estimated anew on them.

No label is needed and no weight is learnt. Adaptive batch normalisation: Li et al., 2016, Revisiting Batch
Normalization For Practical Domain Adaptation; the mixture with the old statistics: Schneider et al., 2020, Improving
robustness against common corruptions by covariate shift adaptation.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labelmill.dataset import Examples, TrainingSet
from labelmill.errors import DataError, SpecError
from labelmill.evaluate.answers import answer, measure
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.labeler import Labeler
from labelmill.model.network import save_weights
from labelmill.spec import Adapt
from labelmill.storage import LISTING_SCHEMA, open_store
from labelmill.train.candidate import Candidate
from labelmill.train.feed import Batch, Feed
from labelmill.train.job import Job
from labelmill.train.progress import METRIC_BY_TASK
from labelmill.train.starting_point import starting_point

__all__ = ["make"]

logger = logging.getLogger(__name__)


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """The version that `model.weights` names, with the statistics of `adapt.images`; `data` only measures it.

    `findings` say how good the version was before on the pictures that measure it. SpecError: other labels or task, or
    a network without batch normalisation. DataError: no pictures, or too many that cannot be read.
    """
    spec = job.spec
    start = starting_point(spec)
    bundle = start.source
    assert spec.adapt is not None and isinstance(bundle, Bundle)
    _check_fit(spec.task, training_set.labels, bundle)
    network = start.build(job.labels)
    layers = _normalisations(network, bundle)
    pictures = _draw(spec.adapt, len(job.labels))
    logger.info("adapting %s to %d pictures of %s", bundle.reference, len(pictures), spec.adapt.images)
    feed = Feed.alone(spec, start.preprocessing, pictures, num_pictures=len(pictures))
    old = [_statistics(layer) for layer in layers]
    num_seen = _estimate(PixelsToLogits(network, start.preprocessing), layers, feed.validation_batches())
    _mix(layers, old, share_of_old=spec.adapt.prior_pictures / (spec.adapt.prior_pictures + num_seen))
    save_weights(network, draft / WEIGHTS_NAME)
    before = measure(bundle, answer(Labeler(bundle, max_pixels=spec.max_pixels), training_set.measured))
    metric = METRIC_BY_TASK[spec.task]
    found = {"from": bundle.reference, "num_pictures": num_seen, "num_layers": len(layers), "before": before[metric]}
    return Candidate(
        spec.model.architecture, start.preprocessing, findings={"adapt": found}, unreadable=feed.unreadable
    )


def _check_fit(task: str, labels: tuple[str, ...], bundle: Bundle) -> None:
    if (task, set(labels)) != (bundle.task, set(bundle.labels)):
        raise SpecError(
            f"approach adapt learns no labels: {bundle.reference} answers task {bundle.task} with "
            f"{', '.join(sorted(bundle.labels))}, and data has task {task} with {', '.join(labels)}. "
            "Give data the labels of the version, or choose approach: fine_tune."
        )


def _normalisations(network: nn.Module, bundle: Bundle) -> list[_BatchNorm]:
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not layers:
        raise SpecError(
            f"{bundle.reference} is a {bundle.architecture}, which has no batch normalisation, so there are no "
            "statistics to estimate anew. Choose approach: fine_tune with labelled pictures of the target."
        )
    return layers


def _draw(adapt: Adapt, num_labels: int) -> Examples:
    listed = pa.Table.from_batches(open_store(adapt.images).list(), schema=LISTING_SCHEMA)
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
