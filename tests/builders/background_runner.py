"""A runner that predicts background only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class BackgroundRunner:
    """Predicts background with the given probability in every pixel."""

    name = "background"

    def __init__(self, num_classes: int, probability: float = 1.0) -> None:
        self._num_classes = num_classes
        self._probability = probability

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        rest = (1 - self._probability) / max(1, self._num_classes - 1)
        probabilities = np.full((len(images), self._num_classes, *images.shape[2:]), rest, np.float32)
        probabilities[:, 0] = self._probability
        return probabilities
