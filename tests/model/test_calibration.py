import json

import numpy as np
import pytest

from bundles import make_bundle, make_draft
from labelmill.errors import BundleError
from labelmill.model.bundle import _digest
from labelmill.model.calibration import confidences, lines
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from pictures import jpeg_bytes

PLATT = {"slopes": [0.5, 1.0, 2.0], "intercepts": [0.0, -1.0, 3.0]}


def test_each_form_does_what_it_says():
    logits = np.array([[1.0, -2.0, 0.5], [0.0, 30.0, -40.0]], np.float32)
    sigmoid = 1 / (1 + np.exp(-logits.astype(np.float64) * PLATT["slopes"] - PLATT["intercepts"]))
    np.testing.assert_allclose(confidences("multi_label", logits, PLATT), sigmoid, atol=1e-6)
    np.testing.assert_allclose(
        confidences("multi_label", logits, {"temperature": 4}), 1 / (1 + np.exp(-logits / 4)), atol=1e-6
    )
    powers = np.exp(logits[0].astype(np.float64) / 2)
    warm = confidences("multi_class", logits[:1], {"temperature": 2.0})
    np.testing.assert_allclose(warm[0], powers / powers.sum(), atol=1e-6)
    for form, slopes, intercepts in (
        (None, [1] * 3, [0] * 3),
        ({"temperature": 4}, [0.25] * 3, [0] * 3),
        (PLATT, *PLATT.values()),
    ):
        np.testing.assert_allclose(lines(form, 3), (slopes, intercepts))
    assert confidences("multi_label", logits, None).dtype == warm.dtype == np.float32
    assert confidences("multi_class", logits, None).sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_a_published_calibration_is_what_the_labeler_answers_with(tmp_path):
    image = jpeg_bytes(seed=3)
    logits = Labeler(make_bundle(tmp_path, "raw"), "torch", precision="float32", num_threads=1).label([image])[0].logits
    for calibration in (None, {"temperature": 2.5}, PLATT):
        make_bundle(tmp_path, "same", calibration=calibration)
        bundle = Registry(str(tmp_path)).resolve(f"same@{len(Registry(str(tmp_path)).versions('same'))}")
        assert bundle.calibration == calibration
        (answer,) = Labeler(bundle, "torch", precision="float32", num_threads=1).label([image])
        np.testing.assert_allclose(answer.logits, logits, atol=1e-5)
        np.testing.assert_allclose(
            answer.confidences, confidences("multi_label", logits[None], calibration)[0], atol=1e-5
        )


@pytest.mark.parametrize(
    "calibration",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": "2"},
        {"temperature": 1.0, "slopes": [1.0] * 3},
        {"slopes": [1.0, 1.0], "intercepts": [0.0, 0.0]},
        {"slopes": [1.0, 1.0, -1.0], "intercepts": [0.0, 0.0, 0.0]},
        {"slopes": [1.0, 1.0, 1.0]},
        {"platt": [1.0]},
        [1.0],
    ],
)
def test_a_calibration_that_cannot_be_applied_is_refused_before_any_picture(tmp_path, calibration):
    with pytest.raises(BundleError, match="calibration of a bundle must be"):
        make_draft(tmp_path, calibration=calibration)


def test_a_garbled_calibration_in_a_registry_is_one_clear_error(tmp_path):
    bundle = make_bundle(tmp_path)
    manifest = tmp_path / "tiny" / "1" / "bundle.json"
    content = json.loads(manifest.read_text())
    content["calibration"] = {"temprature": 2}
    content.pop("digest")
    content["digest"] = _digest(content)
    manifest.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="temprature"):
        Registry(str(tmp_path)).resolve(bundle.reference)
