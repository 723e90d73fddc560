"""Pictures with what they show, as one array a property."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.address import beginnings

__all__ = ["Examples", "addresses_below"]


@dataclass(frozen=True)
class Examples:
    """Pictures with their targets: uris [N], etags [N], and 0 or 1 for each label, uint8 [N, L].

    `slices` [N] are what the labels file says in its column slice, "" for none. `rates` [N] are how often an epoch
    draws each picture; None means once each.
    """

    uris: pa.Array
    etags: pa.Array
    targets: NDArray[np.uint8]
    slices: pa.Array | None = None
    rates: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.uris)

    @property
    def num_draws(self) -> int:
        """Pictures in an epoch."""
        return len(self) if self.rates is None else round(float(self.rates.sum()))

    @classmethod
    def concatenated(cls, parts: Sequence["Examples"]) -> "Examples":
        """One after the other; all of them have slices, or none, and likewise rates."""
        slices = [part.slices for part in parts if part.slices is not None]
        rates = [part.rates for part in parts if part.rates is not None]
        assert len(slices) in (0, len(parts)) and len(rates) in (0, len(parts))
        return cls(
            pa.concat_arrays([part.uris for part in parts]),
            pa.concat_arrays([part.etags for part in parts]),
            np.concatenate([part.targets for part in parts]),
            pa.concat_arrays(slices) if slices else None,
            np.concatenate(rates) if rates else None,
        )

    def take(self, indices: NDArray[np.int64]) -> "Examples":
        rows = pa.array(indices)
        return Examples(
            self.uris.take(rows),
            self.etags.take(rows),
            self.targets[indices],
            None if self.slices is None else self.slices.take(rows),
            None if self.rates is None else self.rates[indices],
        )

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The pictures of an epoch, in random order: each as often as its rate says, rounded up or down by chance.

        Systematic sampling: points at distance one on a line on which each picture is as long as its rate. So the sum
        is always `num_draws`, give or take one, and with rates of one every picture comes exactly once.
        """
        order = rng.permutation(len(self))
        if self.rates is None:
            return order
        ends = np.cumsum(self.rates[order])
        points = np.arange(rng.random(), ends[-1], 1.0)
        return rng.permutation(order[np.searchsorted(ends, points, side="right")])


def addresses_below(root: str, uris: pa.Array) -> list[str]:
    """What of each uri stays as it is when the whole store moves to another root."""
    starts = beginnings(root)
    return [_without(uri, starts) for uri in uris.to_pylist()]


def _without(uri: str, starts: tuple[str, ...]) -> str:
    start = next((start for start in starts if uri.startswith(start)), "")
    return uri[len(start) :]
