"""Expected Dice: an estimate of the Dice of a segmentation from the model's own probabilities, without a mask.

With calibrated probabilities p, the pixels S labelled as a class are expected to contain sum(p over S) pixels of the
class out of sum(p), so the expected Dice is 2 sum(p over S) / (sum(p) + |S|). Models trained on scribbles are too
confident at borders, which `shortfall` corrects: the factor by which the real Dice was further from 1 than the expected
one on validation cases.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_FEWEST_CASES = 3
"""With fewer the mean is too uncertain."""


class ExpectedDice:
    """Accumulates the expected Dice of one volume over its slices."""

    def __init__(self, num_classes: int) -> None:
        self._shared, self._real, self._labelled = (np.zeros(num_classes) for _ in range(3))

    def add(self, probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
        """Add slices.

        Args:
            probabilities: (N, num_classes, H, W) float32 in [0, 1].
            labels: (N, H, W) uint8, the most probable classes.
        """
        num_classes = len(self._labelled)
        own = probabilities.max(axis=1)  # the probability of the label, which is the most probable class
        self._shared += np.bincount(labels.ravel(), own.ravel(), num_classes)
        self._real += probabilities.sum(axis=(2, 3)).sum(axis=0, dtype=np.float64)
        self._labelled += np.bincount(labels.ravel(), minlength=num_classes)

    def by_class(self, classes: Sequence[str]) -> dict[str, float]:
        """The expected Dice in [0, 1] of each foreground class that has labels; `classes` has the background first."""
        return {
            name: float(2 * self._shared[value] / (self._real[value] + self._labelled[value]))
            for value, name in enumerate(classes)
            if value and self._labelled[value]
        }


def shortfall(real: Sequence[float], expected: Sequence[float]) -> float | None:
    """(1 - mean real Dice) / (1 - mean expected Dice) of a class over cases.

    None for fewer than three cases, or if the mean expected Dice is 1.
    """
    if len(real) < _FEWEST_CASES:
        return None
    expected_error = 1 - statistics.fmean(expected)
    return (1 - statistics.fmean(real)) / expected_error if expected_error > 0 else None


def corrected(expected: Mapping[str, float], shortfalls: Mapping[str, float]) -> dict[str, float]:
    """The expected Dice of each class in [0, 1], corrected by its `shortfall`; unchanged where that is unknown."""
    return {name: max(0.0, 1 - shortfalls.get(name, 1.0) * (1 - dice)) for name, dice in expected.items()}
