"""A runner that finds nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Nothing:
    """Background everywhere."""

    name = "nothing"

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        probabilities = np.zeros((len(images), self._num_classes, *images.shape[2:]), np.float32)
        probabilities[:, 0] = 1
        return probabilities
