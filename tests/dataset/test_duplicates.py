import numpy as np
import pytest

from labelmill.dataset.duplicates import connected, find_duplicates, near_pairs
from labelmill.dataset.sights import SIGHT
from labelmill.dataset.survey import Survey


def found(hashes: np.ndarray, max_bits: int) -> set[tuple[int, int]]:
    pairs = np.concatenate(list(near_pairs(hashes, max_bits)), axis=1)
    return {(min(pair), max(pair)) for pair in pairs.T.tolist()}


@pytest.mark.parametrize("max_bits", [0, 3, 6])
@pytest.mark.parametrize("num_hashes", [2, 40, 1500])
def test_the_search_finds_the_same_pairs_as_comparing_all_with_all(max_bits: int, num_hashes: int):
    rng = np.random.default_rng(num_hashes)
    hashes = rng.integers(0, 2**64, num_hashes, dtype=np.uint64)
    for place in range(num_hashes // 2):  # copies of a few of the others, with up to nine bits flipped
        bits = np.uint64(1) << rng.choice(64, rng.integers(0, 10), replace=False).astype(np.uint64)
        hashes[place] = hashes[-1 - place % (num_hashes // 10 + 1)] ^ np.bitwise_or.reduce(bits, initial=np.uint64(0))
    apart = np.bitwise_count(hashes[:, None] ^ hashes)
    left, right = np.nonzero(np.triu(apart <= max_bits, 1))
    assert found(hashes, max_bits) == set(zip(left.tolist(), right.tolist(), strict=True))


def survey_of(*pictures: tuple[int, int, int] | None) -> Survey:
    """Bytes, hash and gray level of each picture; None is one that cannot be read."""
    sights = np.zeros(len(pictures), dtype=SIGHT)
    for place, picture in enumerate(pictures):
        if picture:
            sights[place] = (picture[0], picture[1], np.full(48, picture[2]))
    return Survey(sights, np.array([picture is not None for picture in pictures], dtype=bool), {})


def test_same_bytes_are_exact_and_alike_ones_near():
    seen = survey_of(None, (1, 0xFF00, 90), (2, 0xABCDEF, 20), (1, 0xFF00, 90), None, (3, 0xFF01, 91), (4, 0xFF01, 200))
    links = find_duplicates(seen)
    assert links.exact.tolist() == [[1], [3]]
    assert links.near.tolist() == [[1], [5]], "the same shapes in another colour are no twins"


def test_thousands_that_all_look_alike_are_not_compared_each_with_each():
    links = find_duplicates(survey_of(*[(number, 7, 50) for number in range(3000)]))
    assert links.near.shape == (2, 2999)
    assert not connected(3000, *links.pairs).any()


def test_nothing_to_compare_is_no_error():
    assert find_duplicates(survey_of()).pairs.shape == (2, 0)
    assert find_duplicates(survey_of(None, (1, 1, 1))).pairs.shape == (2, 0)


def test_links_connect_whatever_their_order():
    rng = np.random.default_rng(0)
    chain, order = rng.permutation(500), rng.permutation(499)
    roots = connected(1000, chain[:-1][order], chain[1:][order])
    assert not roots[:500].any()
    assert roots[500:].tolist() == list(range(500, 1000))
