"""The split by hash, on targets alone: what moves, what stays, and how well shares hold."""

import numpy as np
import pytest

from labelmill.dataset.split import split_by_hash, split_word

SHARES = (0.8, 0.1, 0.1)
TRAIN, VALIDATION, TEST = range(3)


def names(count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{number:06d}.jpg" for number in range(count)]


def classes(count: int, num_labels: int = 5) -> np.ndarray:
    return np.eye(num_labels, dtype=np.uint8)[np.arange(count) % num_labels]


def split(keys: list[str], targets: np.ndarray | None = None, seed: int = 0, shares=SHARES) -> dict[str, int]:
    targets = classes(len(keys)) if targets is None else targets
    return dict(zip(keys, split_by_hash(keys, targets, shares, seed)[0].tolist(), strict=True))


def moved(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {key for key in before.keys() & after.keys() if before[key] != after[key]}


@pytest.mark.parametrize("size", [50, 200, 1000, 20_000])
@pytest.mark.parametrize("seed", [0, 7])
def test_growth_and_removal_move_no_picture(size: int, seed: int):
    before = split(names(size), seed=seed)
    for more in (1, size // 10, size):
        assert not moved(before, split([*names(more, "a/"), *names(size)], seed=seed))
        assert not moved(before, split([*names(size), *names(more, "z/")], seed=seed))
    assert not moved(before, split(names(size)[: size - size // 10], seed=seed))
    assert not moved(before, split(names(size)[size // 10 :], seed=seed))
    assert not moved(before, split(names(size)[::-1], seed=seed))


def test_a_new_label_moves_no_picture():
    before = split(names(300), classes(300))
    wider = np.concatenate([classes(300), np.zeros((300, 1), np.uint8)], axis=1)
    wider[::10, -1] = 1
    assert not moved(before, split(names(300), wider))
    assert not moved(before, split([*names(300), *names(30, "new/")], classes(330, 6)))


@pytest.mark.parametrize("size", [50, 300, 1000, 10_000, 100_000])
def test_shares_and_labels_hold_as_the_documentation_says(size: int):
    targets = np.eye(4, dtype=np.uint8)[np.random.default_rng(0).choice(4, size, p=[0.6, 0.25, 0.1, 0.05])]
    within = []
    for seed in range(40 if size <= 10_000 else 4):
        splits, was_moved = split_by_hash(names(size), targets, SHARES, seed)
        assert was_moved.mean() <= 0.04
        for pictures in (np.ones(size, bool), *(targets[:, label] == 1 for label in range(4))):
            for index, share in enumerate(SHARES):
                deviation = abs((splits[pictures] == index).sum() - share * pictures.sum())
                spread = np.sqrt(pictures.sum() * share * (1 - share))
                within.append(deviation <= 2 * spread)
                assert deviation <= max(5 * spread, 2), "so far off comes once in two million sets"
    assert np.mean(within) > 0.9


def test_the_seed_decides():
    first, again, other = (split(names(500), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert 0.2 < len(moved(first, other)) / 500 < 0.5


def test_another_share_moves_pictures_between_training_and_that_split_alone():
    before = split(names(2000))
    more_tests, more_validation = (split(names(2000), shares=shares) for shares in ((0.7, 0.1, 0.2), (0.7, 0.2, 0.1)))
    for key in moved(before, more_tests):
        assert (before[key], more_tests[key]) == (TRAIN, TEST)
    for key in moved(before, more_validation):
        assert (before[key], more_validation[key]) == (TRAIN, VALIDATION)


def test_pictures_with_one_key_stay_together():
    keys = [f"patient {number % 30}" for number in range(300)]
    splits, _ = split_by_hash(keys, classes(300), (0.6, 0.2, 0.2), 0)
    by_key = {key: set(splits[[other == key for other in keys]].tolist()) for key in keys}
    assert all(len(found) == 1 for found in by_key.values())
    assert set.union(*by_key.values()) == {TRAIN, VALIDATION, TEST}


def test_a_split_without_a_share_gets_nothing():
    assert set(split(names(500), shares=(0.5, 0.5, 0.0)).values()) == {TRAIN, VALIDATION}


@pytest.mark.parametrize("seed", range(20))
def test_a_label_with_one_picture_trains_and_moves_nothing_else(seed: int):
    before = split(names(200), classes(200), seed)
    rare = np.concatenate([np.pad(classes(200), ((0, 0), (0, 1))), [[0, 0, 0, 0, 0, 1]]]).astype(np.uint8)
    after = split([*names(200), "lynx.jpg"], rare, seed)
    assert after["lynx.jpg"] == TRAIN
    assert not moved(before, after)


@pytest.mark.parametrize("seed", range(20))
def test_five_pictures_of_one_label_are_enough_to_train_validate_and_test(seed: int):
    targets = np.zeros((400, 1), np.uint8)
    targets[::80] = 1
    splits, was_moved = split_by_hash(names(400), targets, SHARES, seed)
    assert set(splits[targets[:, 0] == 1].tolist()) == {TRAIN, VALIDATION, TEST}
    assert was_moved.sum() <= 3


@pytest.mark.parametrize("seed", range(20))
def test_few_groups_leave_no_split_empty_and_go_to_training_first(seed: int):
    for num_groups, expected in ((1, {TRAIN}), (2, {TRAIN, VALIDATION}), (3, {TRAIN, VALIDATION, TEST})):
        keys = [f"patient {number}" for number in np.arange(30) % num_groups]
        splits, _ = split_by_hash(keys, np.ones((30, 1), np.uint8), SHARES, seed)
        assert set(splits.tolist()) == expected


def test_the_last_training_picture_of_a_label_is_not_taken_away():
    for seed in range(50):
        splits, _ = split_by_hash(names(6), np.eye(6, dtype=np.uint8), SHARES, seed)
        assert set(splits.tolist()) == {TRAIN}, "each label has one picture"


@pytest.mark.parametrize(("word", "split"), [("Train", "train"), ("val", "validation"), ("valid", "validation")])
def test_the_words_in_use_for_splits_are_understood(word: str, split: str):
    assert split_word(word) == split
    assert split_word("holdout") is None
