"""Class areas in real masks, as a prior for predictions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SLICES_AT_ONCE = 256


class Areas(NamedTuple):
    """Fraction of a slice that each class covers, over many slices; 0 in those without the class."""

    mean: Tensor
    """(num_classes,) float32."""
    spread: Tensor
    """(num_classes,) float32 standard deviations between slices."""
    num_masks: Tensor
    """() float32: number of slices."""


def measure_areas(masks: NDArray[np.uint8], slices: NDArray[np.int64], num_classes: int) -> Areas:
    """Areas in `slices` of (S, H, W) uint8 masks, as fractions of all pixels, as predictions are measured.

    IGNORE pixels are padding: they have no structure, but count as pixels of their slice.
    """
    parts = []
    for start in range(0, len(slices), _SLICES_AT_ONCE):
        some = np.asarray(masks[slices[start : start + _SLICES_AT_ONCE]])
        counts = np.stack([(some == value).sum(axis=(1, 2)) for value in range(num_classes)], axis=1)
        parts.append(counts / some[0].size)
    areas = np.concatenate(parts)
    mean, spread = (torch.from_numpy(values.astype(np.float32)) for values in (areas.mean(axis=0), areas.std(axis=0)))
    return Areas(mean, spread, torch.tensor(float(len(areas))))
