"""Flipped and rotated views of slices for a segmentor, and the inverse for its probabilities."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maag.data.slices.augment import rotations, sampling_grids, warp_images, warp_probabilities


class View(NamedTuple):
    """A flip, then a rotation about the centre."""

    flipped: tuple[int, ...] = ()
    """Axes of (N, C, H, W)."""
    degrees: float = 0.0

    def apply(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C, H, W) images in this view; the outside repeats the edge."""
        flipped = np.ascontiguousarray(np.flip(images, self.flipped))
        if not self.degrees:
            return flipped
        tensor = torch.from_numpy(flipped)
        rotated: NDArray[np.float32] = warp_images(tensor, _rotation(tensor, self.degrees), "cubic").numpy()
        return rotated

    def invert(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, num_classes, H, W) probabilities of a view, back in the images' geometry; 0 outside the view."""
        if self.degrees:
            tensor = torch.from_numpy(probabilities)
            probabilities = warp_probabilities(tensor, _rotation(tensor, -self.degrees)).numpy()
        return np.flip(probabilities, self.flipped)


def _rotation(slices: Tensor, degrees: float) -> Tensor:
    """Sampling grid (N, H, W, 2) that rotates `slices`, see `augment.sampling_grids`."""
    size_px = (slices.shape[2], slices.shape[3])
    angles = torch.full((len(slices),), math.radians(degrees))
    return sampling_grids(rotations(angles, size_px), None, size_px)
