"""Random draws of each training step: seeds and slices, functions of only the run's seed and the step."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def seed_of(seed: int, *name: object) -> int:
    """A 63-bit seed for one named draw, independent of those of other names."""
    text = "/".join(str(part) for part in (seed, *name))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


class SliceSource:
    """An endless shuffled stream of slices: each pass over them is a new permutation."""

    def __init__(self, indices: NDArray[np.int64], seed: int, name: str) -> None:
        self._indices = indices
        self._seed = seed
        self._name = name
        self._orders: dict[int, NDArray[np.int64]] = {}  # of the passes drawn from last

    def __len__(self) -> int:
        return len(self._indices)

    def draw(self, start: int, count: int) -> NDArray[np.int64]:
        """Slices number `start` to `start + count` of the stream: (count,) int64 indices of the prepared set."""
        places = np.arange(start, start + count)
        passes = np.unique(places // len(self)).tolist()
        # Kept, as a new permutation in every step would cost the square of the number of slices.
        self._orders = {
            number: self._orders[number] if number in self._orders else self._order(number) for number in passes
        }
        return np.array([self._orders[int(place // len(self))][place % len(self)] for place in places], dtype=np.int64)

    def _order(self, number: int) -> NDArray[np.int64]:
        return np.random.default_rng(seed_of(self._seed, self._name, number)).permutation(self._indices)
