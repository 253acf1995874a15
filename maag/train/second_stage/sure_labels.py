"""Labels of one volume: its scribbles, and a trained model's confident predictions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from maag.config.data import DataConfig
from maag.data.files.volume import Volume
from maag.data.geometry import Grid, inside_in_source
from maag.inference import Runner, Segmentation, largest_components, segment_fully
from maag.labels import IGNORE


def label_volume(
    volume: Volume, drawn: NDArray[np.uint8], runner: Runner, data: DataConfig, entropy: float
) -> NDArray[np.uint8]:
    """Label a volume on its own grid.

    Args:
        volume: voxels (C, Z, Y, X) in any intensity.
        drawn: (Z, Y, X) uint8 scribbles, IGNORE where unannotated; these labels are kept.
        runner: the trained model.
        data: the grid and classes that it was trained with.
        entropy: see `sure_labels`.

    Returns:
        (Z, Y, X) uint8, IGNORE where unannotated pixels are outside the model's grid or interpolated across its edge,
        or it is not confident of them.

    Raises DataError as `segment_fully` does.
    """
    found = segment_fully(volume, runner, data, keep_probabilities=True)
    grid = Grid.plan(volume.shape[1:], volume.spacing_mm[1:], data.spacing_mm, data.size_px)
    sure = np.where(inside_in_source(grid), sure_labels(found, data.num_classes, entropy), np.uint8(IGNORE))
    return np.where(drawn == IGNORE, sure, drawn)


def sure_labels(found: Segmentation, num_classes: int, entropy: float) -> NDArray[np.uint8]:
    """(Z, Y, X) uint8: the most probable class where the normalised entropy is below `entropy`, IGNORE elsewhere.

    Only the largest component of each structure is labelled; voxels that are not sure may connect it. Its other
    components are IGNORE, not background.
    """
    assert found.probabilities is not None
    sure = normalised_entropy(found.probabilities) < entropy
    # Other components become background in `largest_components`, and so differ; background has no components.
    in_largest = largest_components(found.labels, num_classes) == found.labels
    return np.where(sure & in_largest, found.labels, np.uint8(IGNORE))


def normalised_entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """(Z, num_classes, Y, X) to (Z, Y, X) in [0, 1]: -sum p log p / log num_classes; 1 where all are equally likely."""
    entropy: NDArray[np.float32] = entr(probabilities).sum(axis=1) / math.log(probabilities.shape[1])
    return entropy
