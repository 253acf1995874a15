"""Other views of slices for a segmentor to look at, and the way back for what it says of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maag.data.slices.augment import rotations, sampling_grids, warp_images, warp_probabilities


class View(NamedTuple):
    """Mirrored, then turned about the centre."""

    mirrored: tuple[int, ...] = ()
    """Axes of (N, C, H, W)."""
    degrees: float = 0.0

    def of(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C, H, W) images as this view shows them; what comes from outside repeats the edge."""
        mirrored = np.ascontiguousarray(np.flip(images, self.mirrored))
        if not self.degrees:
            return mirrored
        given = torch.from_numpy(mirrored)
        turned: NDArray[np.float32] = warp_images(given, _turn(given, self.degrees), "cubic").numpy()
        return turned

    def back(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, num_classes, H, W) of a view as they lie in the images; all are 0 where the view shows nothing."""
        if self.degrees:
            given = torch.from_numpy(probabilities)
            probabilities = warp_probabilities(given, _turn(given, -self.degrees)).numpy()
        return np.flip(probabilities, self.mirrored)


def _turn(slices: Tensor, degrees: float) -> Tensor:
    """Where each pixel of turned `slices` is taken from: (N, H, W, 2), as `augment.sampling_grids` says."""
    size_px = (slices.shape[2], slices.shape[3])
    angles = torch.full((len(slices),), math.radians(degrees))
    return sampling_grids(rotations(angles, size_px), None, size_px)
