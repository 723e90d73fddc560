"""A classifier from few pictures: the network's features stay as they are, and only the last layer is made anew."""

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labelmill.dataset import Examples, TrainingSet
from labelmill.errors import DataError, SpecError
from labelmill.images.transform import Preprocessing
from labelmill.model.bundle import WEIGHTS_NAME
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.network import head_of, save_weights
from labelmill.train.approaches.head import Head, Seen, best_head
from labelmill.train.candidate import Candidate
from labelmill.train.feed.feed import Batch, Feed
from labelmill.train.job import Job
from labelmill.train.loop.starting_point import starting_point

__all__ = ["make"]

logger = logging.getLogger(__name__)

_NUM_FOLDS = 5


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """The starting point's network with a last layer for these labels, by `approach` linear_probe or prototype.

    In this process, on the GPU where there is one: a few thousand forward passes do not pay for a cluster. Each picture
    is seen as it is and in `few_shot.views` augmented views. SpecError: a network whose logits are no linear function
    of its features. DataError: too many pictures cannot be read.
    """
    spec = job.spec
    assert spec.approach in ("linear_probe", "prototype")
    start = starting_point(job)
    torch.manual_seed(spec.optimize.seed)
    network = start.build(job.labels)
    backbone = _Backbone(network, start.preprocessing)
    logger.info("looking at %d pictures, %d views each", len(training_set.train), spec.few_shot.views + 1)
    unreadable: dict[str, str] = {}
    folds = []
    for examples in _folds(training_set.train):
        feed = Feed.alone(spec, start.preprocessing, examples, num_pictures=training_set.num_pictures)
        folds += backbone.seen(_looks(feed, spec.few_shot.views))
        unreadable |= feed.unreadable
    if not folds:
        raise DataError(f"none of {len(training_set.train)} training pictures can be read: {unreadable}")
    head, found = best_head(spec.approach, spec.task, folds)
    backbone.install(head)
    save_weights(network, draft / WEIGHTS_NAME)
    return Candidate(start.architecture, start.preprocessing, findings={spec.approach: found}, unreadable=unreadable)


def _folds(examples: Examples) -> list[Examples]:
    """Parts alike in their labels: dealt out one by one in the order of the labels."""
    order: NDArray[np.int64] = np.lexsort(examples.targets.T)
    num_folds = min(_NUM_FOLDS, len(examples))
    return [examples.take(np.sort(order[fold::num_folds])) for fold in range(num_folds)]


def _looks(feed: Feed, num_views: int) -> Iterator[Batch]:
    return chain(feed.validation_batches(), *(feed.training_batches(view) for view in range(1, num_views + 1)))


class _Backbone:
    """A network that only looks."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        self._network = network
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._module = PixelsToLogits(network, preprocessing, embeddings=True).eval().to(self._device)
        self._last: Tensor | None = None

    @torch.no_grad()
    def seen(self, batches: Iterator[Batch]) -> list[Seen]:
        """The features of all batches as one; none when there are no batches."""
        features, targets = [], []
        for pixels_bhwc, wanted in batches:
            self._last = torch.from_numpy(pixels_bhwc).to(self._device)
            features.append(self._module(self._last)[1].float().cpu())
            targets.append(torch.from_numpy(wanted))
        return [Seen(torch.cat(features), torch.cat(targets))] if features else []

    @torch.no_grad()
    def install(self, head: Head) -> None:
        """Make it the network's last layer, and see that it is: some networks compute on behind that layer."""
        assert self._last is not None
        layer = head_of(self._network)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        fits = False
        if layer.bias is not None and layer.weight.numel() == head.weight.numel():
            layer.weight.copy_(head.weight.view_as(layer.weight))
            layer.bias.copy_(head.bias)
            logits, features = (output.float().cpu() for output in self._module(self._last))
            expected = head.logits(features)
            fits = bool((logits - expected).abs().max() <= 1e-3 * max(1.0, float(expected.abs().max())))
        if not fits:
            raise SpecError(
                "the logits of this architecture are no linear function of the features that its last layer sees (it "
                "averages several last layers, or computes on behind them), so no last layer can be fitted to them. "
                "Choose another architecture, or approach: fine_tune."
            )
        self._network.cpu()
