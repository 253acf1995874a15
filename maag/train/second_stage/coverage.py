"""Coverage of labels by class and, where there are masks, their correctness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maag.labels import IGNORE


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """One class in the labels of some cases."""

    percent: float
    """Percentage of all pixels that have this label."""
    correct_percent: float | None
    """Percentage of these pixels that have the class in the masks; None without masks or without such pixels."""
    reached_percent: float | None
    """Percentage of the class's pixels in the masks that have this label; None without masks or if they lack it."""


class CoverageTally:
    """Counts over cases."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._num_pixels = 0
        self._labelled = np.zeros(num_classes, np.int64)
        self._confusion = np.zeros((num_classes, IGNORE + 1), np.int64)  # by mask and label

    def add(self, labels: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> None:
        """Count a case: its (Z, Y, X) labels, IGNORE where unlabelled, and its mask of the same shape."""
        self._num_pixels += labels.size
        self._labelled += np.bincount(labels.ravel(), minlength=IGNORE + 1)[: self._num_classes]
        if mask is not None:
            for value in range(self._num_classes):
                self._confusion[value] += np.bincount(labels[mask == value], minlength=IGNORE + 1)

    def of(self, value: int) -> Coverage:
        """The coverage of the class with label `value`."""
        correct = int(self._confusion[value, value])
        return Coverage(
            percent=_percent(int(self._labelled[value]), self._num_pixels) or 0.0,
            correct_percent=_percent(correct, int(self._confusion[:, value].sum())),
            reached_percent=_percent(correct, int(self._confusion[value].sum())),
        )


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
