"""approach: ensemble. Published models become one that answers with the mean of their confidences."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from labelmill.dataset import TrainingSet
from labelmill.errors import SpecError
from labelmill.evaluate.answers import answer, measure
from labelmill.images.transform import Preprocessing
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.calibration import lines
from labelmill.model.ensemble import Ensemble, Member, ensemble_architecture, ensemble_members
from labelmill.model.labeler import Labeler
from labelmill.model.network import build_network, load_weights, save_weights
from labelmill.train.candidate import Candidate
from labelmill.train.job import Job
from labelmill.train.progress import METRIC_BY_TASK
from labelmill.train.published import published_models

__all__ = ["assemble", "make"]

logger = logging.getLogger(__name__)


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """The models that `ensemble.models` names, as one. DataError: they do not answer the same question. SpecError: one
    is an ensemble itself."""
    wanted = job.spec.ensemble
    assert wanted is not None
    bundles = published_models(job, wanted.models)
    for bundle in bundles:
        if ensemble_members(bundle.architecture):
            raise SpecError(f"ensemble.models: {bundle.reference} is an ensemble itself; name its members instead.")
    architecture, preprocessing = assemble(bundles, draft / WEIGHTS_NAME)
    metric = METRIC_BY_TASK[job.spec.task]
    alone = {}
    for bundle in bundles:
        labeler = Labeler(bundle, max_pixels=job.spec.max_pixels)
        alone[bundle.reference] = measure(bundle, answer(labeler, training_set.measured))[metric]
        logger.info("%s alone: %s %.4f", bundle.reference, metric, alone[bundle.reference] or 0.0)
    return Candidate(architecture, preprocessing, findings={"ensemble": {"metric": metric, "members": alone}})


def assemble(bundles: Sequence[Bundle], file: Path) -> tuple[str, Preprocessing]:
    """Write the weights of an ensemble of these bundles; returns its architecture and its preprocessing."""
    architecture, preprocessing = ensemble_architecture(_members(bundles)), _preprocessing(bundles)
    network = build_network(architecture, len(bundles[0].labels), image_size_px=preprocessing.image_size_px)
    assert isinstance(network, Ensemble)
    _fill(network, bundles)
    save_weights(network, file)
    return architecture, preprocessing


def _preprocessing(bundles: Sequence[Bundle]) -> Preprocessing:
    """The largest picture and the widest view that a member asks for; each member normalises for itself."""
    size_px = max(bundle.preprocessing.image_size_px for bundle in bundles)
    crop_fraction = max(bundle.preprocessing.crop_fraction for bundle in bundles)
    return Preprocessing(size_px, crop_fraction, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def _members(bundles: Sequence[Bundle]) -> list[Member]:
    largest_px = _preprocessing(bundles).image_size_px
    sizes_px = [bundle.preprocessing.image_size_px for bundle in bundles]
    return [
        Member(bundle.architecture, size_px if size_px < largest_px else None)
        for bundle, size_px in zip(bundles, sizes_px, strict=True)
    ]


def _fill(network: Ensemble, bundles: Sequence[Bundle]) -> None:
    """What each bundle holds: weights, normalisation, calibration."""
    for index, bundle in enumerate(bundles):
        load_weights(network.members[index], bundle.weights_path())
        network.mean[index] = torch.tensor(bundle.preprocessing.mean)
        network.std[index] = torch.tensor(bundle.preprocessing.std)
        slopes, intercepts = lines(bundle.calibration, len(bundle.labels))
        network.slopes[index], network.intercepts[index] = torch.from_numpy(slopes), torch.from_numpy(intercepts)
    network.exclusive.fill_(float(bundles[0].task == "multi_class"))
