import numpy as np
import pytest

from labelmill.evaluate.calibration import fit_calibration
from labelmill.metrics import reliability
from labelmill.model.calibration import confidences


def drawn(task, num_pictures, num_labels=5, seed=0, spread=2.0):
    """Honest logits [N, L] and targets that come true as often as they say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (num_pictures, num_labels)).astype(np.float32)
    honest = confidences(task, logits, None)
    if task == "multi_class":
        true = (honest.cumsum(axis=1) > rng.random((num_pictures, 1))).argmax(axis=1)
        return logits, np.eye(num_labels, dtype=np.uint8)[true]
    return logits, (rng.random(honest.shape) < honest).astype(np.uint8)


def log_loss(task, targets, logits, calibration):
    found = np.clip(confidences(task, logits, calibration).astype(np.float64), 1e-9, 1 - 1e-9)
    wrong = 0 if task == "multi_class" else (1 - targets) * np.log(1 - found)
    return -(targets * np.log(found) + wrong).sum() / len(targets)


@pytest.mark.parametrize("task", ["binary", "multi_class", "multi_label"])
def test_bold_logits_are_cooled_by_what_they_were_heated(task):
    logits, targets = drawn(task, 4000, num_labels=1 if task == "binary" else 5)
    assert fit_calibration(task, "temperature", targets, 3 * logits)["temperature"] == pytest.approx(3, rel=0.1)
    assert fit_calibration(task, "temperature", targets, logits / 2)["temperature"] == pytest.approx(0.5, rel=0.1)


def test_each_label_gets_back_its_own_slope_and_level():
    logits, targets = drawn("multi_label", 20_000)
    heat, shift = np.array([0.5, 1, 2, 3, 5], np.float32), np.array([0, 2, -2, 4, 30], np.float32)
    found = fit_calibration("multi_label", "per_label", targets, heat * logits + shift)
    np.testing.assert_allclose(np.array(found["slopes"]) * heat, 1, rtol=0.1)
    np.testing.assert_allclose(np.array(found["intercepts"]) + found["slopes"] * shift, 0, atol=0.1)


@pytest.mark.parametrize(
    ("task", "method"), [("multi_class", "temperature"), ("multi_label", "temperature"), ("multi_label", "per_label")]
)
def test_no_other_calibration_nearby_fits_better(task, method):
    logits, targets = drawn(task, 3000)
    logits = 2 * logits + 1 if task == "multi_label" else 2 * logits
    found = fit_calibration(task, method, targets, logits)
    least = log_loss(task, targets, logits, found)
    for step in (0.97, 1.03):
        for name in found:
            moved = found | {name: np.multiply(found[name], step).tolist()}
            assert log_loss(task, targets, logits, moved) > least - 1e-6


@pytest.mark.parametrize("task", ["binary", "multi_class", "multi_label"])
def test_confidences_of_other_pictures_mean_what_they_say_afterwards(task):
    num_labels = 1 if task == "binary" else 5
    logits, targets = drawn(task, 2000, num_labels)
    found = fit_calibration(task, "auto", targets, 3 * logits)
    others, truth = drawn(task, 4000, num_labels, seed=1)
    before, after = (
        reliability(task, truth, confidences(task, 3 * others, calibration))["ece"] for calibration in (None, found)
    )
    assert after < before / 2


def test_auto_keeps_sums_of_one_and_frees_what_stands_alone():
    logits, targets = drawn("multi_class", 100)
    assert set(fit_calibration("multi_class", "auto", targets, logits)) == {"temperature"}
    assert set(fit_calibration("multi_label", "auto", targets, logits)) == {"slopes", "intercepts"}
    assert fit_calibration("multi_label", "none", targets, logits) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["temperature", "per_label"])
def test_a_few_pictures_that_are_all_right_make_no_model_sure_of_everything(method):
    targets = np.eye(2, dtype=np.uint8)[[0, 1, 0, 1, 0, 1]]
    logits = (targets * 2.0 - 1).astype(np.float32) * 4
    for task in ("multi_label", "multi_class") if method == "temperature" else ("multi_label",):
        found = confidences(task, logits, fit_calibration(task, method, targets, logits))
        assert 0.7 < found.max() < 0.95
        assert (found > 0.5).tolist() == targets.astype(bool).tolist()


@pytest.mark.filterwarnings("error")
def test_a_label_without_pictures_or_against_the_truth_keeps_its_ranking():
    logits, targets = drawn("multi_label", 500)
    targets[:, 0] = 0
    targets[:, 1] = 1
    targets[:, 2] = 0
    targets[7, 2] = 1
    targets[:, 3] ^= 1  # upside down
    found = fit_calibration("multi_label", "per_label", targets, logits)
    assert len(set(found["slopes"][:4])) == 1
    assert found["intercepts"][:4] == [0.0] * 4
    assert found["slopes"][4] != found["slopes"][0]
    assert min(found["slopes"]) > 0


def test_logits_far_from_zero_do_not_lead_the_search_astray():
    logits, targets = drawn("multi_label", 2000)
    found = fit_calibration("multi_label", "per_label", targets, 50 * logits - 2000)
    np.testing.assert_allclose(np.array(found["slopes"]) * 50, 1, rtol=0.2)
