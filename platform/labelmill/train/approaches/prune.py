"""approach: prune. A published model loses its weakest inner channels and is trained again."""

import logging
from dataclasses import replace
from pathlib import Path

from labelmill.dataset import TrainingSet
from labelmill.errors import SpecError
from labelmill.model.ensemble import ensemble_members
from labelmill.model.pruned import pruned_architecture, pruned_share
from labelmill.spec import TrainModel
from labelmill.train.approaches import fit
from labelmill.train.approaches.comparison import compare
from labelmill.train.candidate import Candidate
from labelmill.train.job import Job
from labelmill.train.published import changed, published_models
from labelmill.train.seen import unseen_by

__all__ = ["make"]

logger = logging.getLogger(__name__)


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """The model that `prune.model` names, narrower and trained again as `optimize` says.

    DataError: it loses more than `max_accuracy_loss`. SpecError: it cannot be pruned. Else as `fit` raises.
    """
    wanted = job.spec.prune
    assert wanted is not None
    [bundle] = published_models(job, [wanted.model])
    if pruned_share(bundle.architecture) or ensemble_members(bundle.architecture):
        raise SpecError(
            f"prune.model: {bundle.reference} is {bundle.architecture}, and only a network as its library builds it "
            "can be pruned; name the model that it was made of."
        )
    model = TrainModel.model_construct(
        architecture=pruned_architecture(bundle.architecture, wanted.share),
        weights=bundle.reference,
        image_size_px=bundle.preprocessing.image_size_px,
    )
    narrow = replace(job, spec=job.spec.model_copy(update={"model": model}))
    candidate = fit.make(narrow, training_set, draft)
    pruned = changed(bundle, draft, architecture=candidate.architecture, preprocessing=candidate.preprocessing)
    comparison = compare(bundle, pruned, unseen_by(bundle, training_set), max_pixels=job.spec.max_pixels)
    logger.info("%s without %g of its inner channels: %s", bundle.reference, wanted.share, comparison)
    comparison.check(wanted.max_accuracy_loss, "Lower prune.share, train longer, or allow more.")
    return replace(candidate, findings={**candidate.findings, "prune": comparison.to_json() | {"share": wanted.share}})
