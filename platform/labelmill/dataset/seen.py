"""Which pictures a model has seen the labels of: eight bytes for each address, sorted.

Those that trained the network count, and those that chose its epoch, its calibration and its thresholds. A picture is
known by its address and by its address below the root of its store, so neither a store that moved nor another root
hides it. Pictures of two stores that have the same address below their roots are taken for one: rather too few pictures
are called unseen than one too many.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from labelmill.dataset.examples import Examples, addresses_below
from labelmill.dataset.training_set import TrainingSet

__all__ = ["Seen", "seen_in_training", "unseen"]

Seen = NDArray[np.uint64]


def seen_in_training(training_set: TrainingSet) -> Seen:
    """What a model sees that is made with this training set. Further sources are known by their whole addresses."""
    main = training_set.train.uris[: len(training_set.train) - sum(training_set.num_extra)]
    below = [addresses_below(training_set.root, uris) for uris in (main, training_set.validation.uris)]
    whole = [examples.uris.to_pylist() for examples in (training_set.train, training_set.validation)]
    return np.unique(_hashes(address for part in (*below, *whole) for address in part))


def unseen(examples: Examples, root: str, seen: Seen) -> NDArray[np.bool_]:
    """Which of these pictures, [N], are not among `seen`."""
    known: NDArray[np.bool_] = np.isin(_hashes(addresses_below(root, examples.uris)), seen)
    return ~(known | np.isin(_hashes(examples.uris.to_pylist()), seen))


def _hashes(addresses: Iterable[str]) -> Seen:
    digests = b"".join(hashlib.blake2b(address.encode(), digest_size=8).digest() for address in addresses)
    return np.frombuffer(digests, "<u8")
