"""How well a model expects to have labelled a volume: the Dice that its own probabilities promise, without a mask.

If probabilities were right, labels S of a class and its real pixels would share sum(p in S) pixels, and there would be
sum(p) real ones, so that the Dice to expect is 2 sum(p in S) / (sum(p) + |S|). Models that learned from strokes are
too sure of their borders, hence `shortfall`: how many times further from 1 the real Dice was on validation cases.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_FEWEST_CASES = 3
"""Of fewer a mean says little."""


class ExpectedDice:
    """Adds up slices of one volume, as they come."""

    def __init__(self, num_classes: int) -> None:
        self._shared, self._real, self._labelled = (np.zeros(num_classes) for _ in range(3))

    def add(self, probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
        """Take slices into account.

        Args:
            probabilities: (N, num_classes, H, W) float32 in [0, 1].
            labels: (N, H, W) uint8, the likeliest classes.
        """
        num_classes = len(self._labelled)
        own = probabilities.max(axis=1)  # as the labels are the likeliest
        self._shared += np.bincount(labels.ravel(), own.ravel(), num_classes)
        self._real += probabilities.sum(axis=(2, 3)).sum(axis=0, dtype=np.float64)
        self._labelled += np.bincount(labels.ravel(), minlength=num_classes)

    def by_class(self, classes: Sequence[str]) -> dict[str, float]:
        """In [0, 1], of each foreground class that has labels; `classes` are all names, background first."""
        return {
            name: float(2 * self._shared[value] / (self._real[value] + self._labelled[value]))
            for value, name in enumerate(classes)
            if value and self._labelled[value]
        }


def shortfall(real: Sequence[float], expected: Sequence[float]) -> float | None:
    """How many times further from 1 the real Dice of a class is than the expected one, in the mean over cases.

    None of fewer than three cases, or where nothing was expected to be wrong.
    """
    if len(real) < _FEWEST_CASES:
        return None
    doubt = 1 - statistics.fmean(expected)
    return (1 - statistics.fmean(real)) / doubt if doubt > 0 else None


def corrected(expected: Mapping[str, float], shortfalls: Mapping[str, float]) -> dict[str, float]:
    """The Dice to expect of each class, in [0, 1], when its `shortfall` is known; as it was where it is not."""
    return {name: max(0.0, 1 - shortfalls.get(name, 1.0) * (1 - dice)) for name, dice in expected.items()}
