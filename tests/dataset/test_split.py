import numpy as np

from labelmill.dataset.split import assign_splits, rarest_labels


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


def test_pictures_are_split_by_their_rarest_label():
    rows, codes = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 0, 0, 0])
    assert rarest_labels(rows, codes, num_rows=5, num_labels=2).tolist() == [1, 0, 0, 0, 2]
