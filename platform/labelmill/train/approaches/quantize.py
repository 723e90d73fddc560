"""approach: quantize. A published model answers in 8-bit integers, unless that costs too much."""

import logging
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelmill.dataset import TrainingSet
from labelmill.errors import BundleError, SpecError
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.engines.child import run_in_child
from labelmill.model.quantized import INT8_GRAPH, is_quantized
from labelmill.train.approaches.comparison import compare
from labelmill.train.candidate import Candidate
from labelmill.train.feed.sample import sample_pixels
from labelmill.train.job import Job
from labelmill.train.published import changed, published_models
from labelmill.train.seen import unseen_by

__all__ = ["make"]

logger = logging.getLogger(__name__)


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """The model that `quantize.model` names, with a graph in 8-bit integers beside its float weights.

    DataError: it loses more than `max_accuracy_loss`, or no training picture can be read. SpecError: nncf is not
    installed, or the model is quantized already. BundleError: OpenVINO or nncf cannot take the network.
    """
    wanted = job.spec.quantize
    assert wanted is not None
    if find_spec("nncf") is None:
        raise SpecError("approach quantize needs nncf, which is not installed here: pip install 'labelmill[quantize]'")
    [bundle] = published_models(job, [wanted.model])
    if is_quantized(bundle):
        raise SpecError(f"quantize.model: {bundle.reference} is in 8-bit integers already; name the one it came from.")
    shutil.copyfile(bundle.weights_path(), draft / WEIGHTS_NAME)
    pixels = sample_pixels(training_set.train, bundle.preprocessing, wanted.num_pictures, job.spec.max_pixels)
    logger.info("quantizing %s by the ranges on %d training pictures", bundle.reference, len(pixels))
    _quantize(bundle, pixels, draft / INT8_GRAPH)
    comparison = compare(
        bundle,
        changed(bundle, draft),
        unseen_by(bundle, training_set),
        engine="openvino",
        max_pixels=job.spec.max_pixels,
    )
    logger.info("%s in 8-bit integers: %s", bundle.reference, comparison)
    comparison.check(wanted.max_accuracy_loss, "Raise quantize.num_pictures, or allow more.")
    findings = {"quantize": {**comparison.to_json(), "num_calibration_pictures": len(pixels)}}
    return Candidate(bundle.architecture, bundle.preprocessing, findings=findings)


def _quantize(bundle: Bundle, pixels_bhwc: NDArray[np.uint8], file: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="labelmill-quantize-") as folder:
        pixels = Path(folder) / "pixels.npy"
        np.save(pixels, pixels_bhwc)
        reason = run_in_child("labelmill.model.engines.quantize", bundle, pixels=str(pixels), file=str(file))
        if reason is not None:
            raise BundleError(
                f"{bundle.reference} ({bundle.architecture}) could not be quantized: {reason}. "
                "Label with it as it is, or choose another architecture."
            )
