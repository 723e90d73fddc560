import numpy as np
import pyarrow as pa
import pytest

from labelmill.dataset import Examples, find_suspects, left_out_confidences

LABELS = ("cat", "dog", "owl")


def examples_of(targets: np.ndarray) -> Examples:
    uris = pa.array([f"/store/{number}.jpg" for number in range(len(targets))])
    return Examples(uris, uris, targets.astype(np.uint8))


def one_hot(given: np.ndarray) -> np.ndarray:
    return (np.arange(len(LABELS)) == given[:, None]).astype(np.uint8)


def confident(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Confidences [N, 3] of a model that is mostly right, and less sure where it is not; they add up to one."""
    right = rng.random(len(truth)) < 0.95
    seen = np.where(right, truth, (truth + 1) % 3)
    sure = np.where(right, rng.uniform(2, 5, len(truth)), rng.uniform(0.5, 2, len(truth)))
    raw = one_hot(seen) * sure[:, None] + rng.uniform(0, 1, (len(truth), 3))
    return (np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)).astype(np.float32)


def test_planted_wrong_labels_are_found_and_the_worst_come_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    given = truth.copy()
    planted = np.arange(0, 600, 20)
    given[planted] = (truth[planted] + 1) % 3
    confidences = confident(truth, rng)
    found = find_suspects(
        "multi_class",
        LABELS,
        {
            "validation": (examples_of(one_hot(given[:300])), confidences[:300]),
            "test": (examples_of(one_hot(given[300:])), confidences[300:]),
        },
    )
    assert found["num_pictures"] == 600
    places = [int(row["uri"][7:-4]) + 300 * (row["split"] == "test") for row in found["pictures"]]
    assert len(set(places) & set(planted.tolist())) >= 20
    assert set(places[:10]) <= set(planted.tolist())
    qualities = [row["quality"] for row in found["pictures"]]
    assert qualities == sorted(qualities)
    first, place = found["pictures"][0], places[0]
    assert first["given"] == [LABELS[given[place]]]
    assert first["suggested"] == [LABELS[confidences[place].argmax()]]


def test_with_many_labels_each_is_doubted_by_itself():
    rng = np.random.default_rng(1)
    truth = rng.random((400, 3)) < 0.4
    confidences = np.clip(np.where(truth, 0.9, 0.1) + rng.normal(0, 0.05, truth.shape), 0.01, 0.99).astype(np.float32)
    given = truth.copy()
    given[:20, 1] ^= True
    given[200:220] ^= [True, False, False]
    found = find_suspects("multi_label", LABELS, {"test": (examples_of(given), confidences)})
    places = [int(row["uri"][7:-4]) for row in found["pictures"]]
    assert set(places) <= {*range(20), *range(200, 220)}
    assert len(places) >= 24
    for row, place in zip(found["pictures"], places, strict=True):
        assert row["given"] == [label for label, there in zip(LABELS, given[place], strict=True) if there]
        assert row["suggested"] == [label for label, there in zip(LABELS, truth[place], strict=True) if there]


def test_no_labels_are_doubted_where_a_model_agrees_or_has_one_label_to_go_by():
    truth = np.arange(90) % 3
    sure = np.where(one_hot(truth) == 1, 0.98, 0.01).astype(np.float32)
    assert find_suspects("multi_class", LABELS, {"test": (examples_of(one_hot(truth)), sure)})["num"] == 0
    alone = np.zeros((30, 1))
    assert find_suspects("binary", ("cat",), {"test": (examples_of(alone), alone.astype(np.float32))})["num"] == 0


@pytest.mark.filterwarnings("error")
def test_a_label_that_no_picture_carries_is_no_warning_and_no_error():
    given = np.arange(40) % 2
    confidences = np.where(one_hot(given) == 1, 0.9, 0.05).astype(np.float32)
    confidences[3] = [0.01, 0.02, 0.97]
    found = find_suspects("multi_class", LABELS, {"test": (examples_of(one_hot(given)), confidences)})
    assert [row["suggested"] for row in found["pictures"]] in ([], [["owl"]])


@pytest.mark.parametrize("task", ["multi_class", "multi_label"])
def test_leaving_a_picture_out_is_what_it_says(task: str):
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(40, 5)).astype(np.float16), one_hot(rng.integers(0, 3, 40))
    found = left_out_confidences(task, features, targets)
    # By hand: the same regression, with the same centre and penalty, once for each picture.
    rows = np.column_stack([features.astype(float) - features.astype(float).mean(0), np.ones(40)])
    penalty = np.diag([*[0.01 * np.trace(rows[:, :-1].T @ rows[:, :-1]) / 5] * 5, 0])
    for place in range(40):
        others = np.arange(40) != place
        weights = np.linalg.solve(rows[others].T @ rows[others] + penalty, rows[others].T @ targets[others])
        expected = np.clip(rows[place] @ weights, 1e-3, 1 - 1e-3)
        if task == "multi_class":
            expected /= expected.sum()
        assert found[place] == pytest.approx(expected, abs=1e-4)


def test_wrong_labels_are_found_by_features_that_learnt_from_them_least():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 300)
    features = (rng.normal(size=(3, 16))[truth] * 2 + rng.normal(size=(300, 16))).astype(np.float16)
    given = truth.copy()
    given[:15] = (given[:15] + 1) % 3
    confidences = left_out_confidences("multi_class", features, one_hot(given))
    found = find_suspects("multi_class", LABELS, {"train": (examples_of(one_hot(given)), confidences)})
    places = {int(row["uri"][7:-4]) for row in found["pictures"]}
    assert len(places) >= 8
    assert places <= set(range(15))
