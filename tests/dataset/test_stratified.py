import numpy as np
import pytest

from labelmill.dataset.stratified import assign_splits, stratify

SHARES = (0.8, 0.1, 0.1)


def test_every_label_reaches_every_split_in_its_share():
    strata = np.array([0] * 800 + [1] * 150 + [2] * 7)
    splits = assign_splits(strata, (0.8, 0.1, 0.1), seed=3)
    assert np.bincount(splits[strata == 0]).tolist() == [640, 80, 80]
    assert np.bincount(splits[strata == 1]).tolist() == [120, 15, 15]
    assert np.bincount(splits[strata == 2], minlength=3).min() >= 1


def test_many_small_labels_do_not_all_lean_to_one_split():
    splits = assign_splits(np.repeat(np.arange(1000), 5), (0.6, 0.2, 0.2), seed=0)
    assert np.bincount(splits).tolist() == [3000, 1000, 1000]
    splits = assign_splits(np.repeat(np.arange(1000), 15), (0.8, 0.1, 0.1), seed=0)
    assert abs(np.bincount(splits)[1] - np.bincount(splits)[2]) < 150


def test_a_label_too_rare_for_all_splits_goes_to_training_first():
    assert assign_splits(np.array([0]), (0.8, 0.1, 0.1), seed=0).tolist() == [0]
    assert sorted(assign_splits(np.array([0, 0]), (0.8, 0.1, 0.1), seed=0).tolist()) == [0, 1]


def test_no_picture_goes_to_a_split_without_a_share():
    assert set(assign_splits(np.zeros(101, dtype=int), (0.9, 0.1, 0.0), seed=0).tolist()) == {0, 1}


def test_the_seed_decides_the_split():
    strata = np.zeros(200, dtype=int)
    first, again, other = (assign_splits(strata, (0.8, 0.1, 0.1), seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def imbalance(targets: np.ndarray, splits: np.ndarray) -> float:
    """Mean distance between the odds of a label in a split and in all pictures ("labels distribution" of the paper)."""
    odds = [(part.sum(0) / np.maximum(len(part) - part.sum(0), 1)) for part in (targets[splits == s] for s in range(3))]
    whole = targets.sum(0) / (len(targets) - targets.sum(0))
    return float(np.abs(np.stack(odds) - whole).mean())


def many_labels(num_pictures: int = 600) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.random((num_pictures, 12)) < np.geomspace(0.5, 0.01, 12)).astype(np.uint8)


def test_every_label_of_many_keeps_its_share_in_every_split():
    targets = many_labels()
    splits = stratify(targets, None, SHARES, seed=0)
    at_random = [np.random.default_rng(seed).choice(3, len(targets), p=SHARES) for seed in range(5)]
    assert imbalance(targets, splits) < 0.4 * np.mean([imbalance(targets, other) for other in at_random])
    assert np.abs(np.bincount(splits) - np.array(SHARES) * len(targets)).max() <= 6
    for split in range(3):
        assert targets[splits == split].any(axis=0).all(), "a label with six pictures is missing in a split"


def test_pictures_without_a_label_are_shared_out_too():
    targets = np.zeros((100, 2), dtype=np.uint8)
    targets[:20], targets[20:40, 0] = 1, 1
    bare = ~targets.any(axis=1)
    assert np.bincount(stratify(targets, None, SHARES, seed=0)[bare]).tolist() == [48, 6, 6]


@pytest.mark.parametrize("labels_a_picture", [1, 3])
def test_a_group_never_straddles_splits_and_labels_keep_their_shares(labels_a_picture: int):
    rng = np.random.default_rng(2)
    groups = rng.integers(0, 120, 1500)
    targets = np.zeros((1500, 5), dtype=np.uint8)
    for _ in range(labels_a_picture):
        targets[np.arange(1500), rng.choice(5, 1500, p=[0.5, 0.25, 0.15, 0.07, 0.03])] = 1
    splits = stratify(targets, groups, SHARES, seed=0)
    assert all(len(set(splits[groups == group])) == 1 for group in range(120))
    for split, share in enumerate(SHARES):
        found = targets[splits == split].sum(0) / targets.sum(0)
        assert np.abs(found - share).max() < 0.08


def test_groups_as_large_as_a_split_leave_none_empty():
    groups = np.repeat(np.arange(3), 10)
    targets = np.ones((30, 1), dtype=np.uint8)
    assert sorted(np.bincount(stratify(targets, groups, (0.6, 0.2, 0.2), seed=0)).tolist()) == [10, 10, 10]


def test_no_group_goes_to_a_split_without_a_share():
    splits = stratify(many_labels(), np.arange(600) // 2, (0.5, 0.5, 0.0), seed=0)
    assert np.bincount(splits, minlength=3)[2] == 0


def test_the_seed_decides_where_many_labels_go():
    first, again, other = (stratify(many_labels(), None, SHARES, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
