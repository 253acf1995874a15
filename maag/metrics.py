"""Overlap and surface distances (mm) between a predicted and a reference label volume.

The rules for absent classes:

* in neither the reference nor the prediction: every score is None and left out of means, counted as `absent_in_both`;
* in the reference only: Dice and IoU are 0, distances are None and left out of means, counted as `missed`;
* in the prediction only: the same, counted as `invented`.

Voxels that are IGNORE in the reference belong to no class in either volume: they do not count in overlaps, and
surfaces end at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance
from numpy.typing import NDArray

from maag.errors import DataError
from maag.labels import BACKGROUND, IGNORE

SCORES = ("dice", "iou", "hd_mm", "hd95_mm", "assd_mm")
"""The numeric fields of `ClassScores`."""

Presence = Literal["both", "missed", "invented", "absent_in_both"]
PRESENCES: tuple[Presence, ...] = get_args(Presence)

_PERCENTILE = 95.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """One class of one case; None where a score is undefined."""

    presence: Presence
    dice: float | None = None
    """2 |P and R| / (|P| + |R|), in [0, 1]."""
    iou: float | None = None
    """|P and R| / |P or R|, in [0, 1]."""
    hd_mm: float | None = None
    """Hausdorff distance: the largest distance from a surface voxel of either to the other's surface."""
    hd95_mm: float | None = None
    """The larger of the two directed 95th percentiles (linear interpolation) of these distances."""
    assd_mm: float | None = None
    """Average symmetric surface distance: the mean over all surface voxels of both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceDistances:
    """The three distances between two surfaces, in mm."""

    hd_mm: float
    hd95_mm: float
    assd_mm: float


def score_case(
    prediction: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    classes: Sequence[str],
) -> dict[str, ClassScores]:
    """Score every foreground class of one case.

    Args:
        prediction: (Z, Y, X) uint8 labels at source resolution.
        reference: (Z, Y, X) uint8 labels; IGNORE where unlabelled.
        spacing_mm: voxel size (z, y, x).
        classes: names in the order of their label values, background first.

    Returns:
        Scores by name of each foreground class.

    Raises:
        DataError: the two shapes differ.
    """
    if prediction.shape != reference.shape:
        raise DataError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape (Z, Y, X)")
    known = reference != IGNORE
    return {
        name: score_class((prediction == value) & known, reference == value, spacing_mm)
        for value, name in enumerate(classes)
        if value != BACKGROUND
    }


def score_class(
    predicted: NDArray[np.bool_], real: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> ClassScores:
    """Score one class given as two (Z, Y, X) bool masks of equal shape; `spacing_mm` is (z, y, x)."""
    num_predicted, num_real = int(predicted.sum()), int(real.sum())
    if not num_predicted and not num_real:
        return ClassScores(presence="absent_in_both")
    if not num_predicted or not num_real:
        return ClassScores(presence="missed" if num_real else "invented", dice=0.0, iou=0.0)
    num_shared = int((predicted & real).sum())
    distances = surface_distances(predicted, real, spacing_mm)
    return ClassScores(
        presence="both",
        dice=2 * num_shared / (num_predicted + num_real),
        iou=num_shared / (num_predicted + num_real - num_shared),
        hd_mm=distances.hd_mm,
        hd95_mm=distances.hd95_mm,
        assd_mm=distances.assd_mm,
    )


def surface_distances(
    predicted: NDArray[np.bool_], real: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> SurfaceDistances:
    """Distances between the surfaces of two non-empty masks.

    The surface of a mask is its voxels that share a face with a voxel outside it, or with the border of the volume.
    Distances are Euclidean, from voxel centre to nearest voxel centre. A volume of one slice is measured in 2-D,
    because along the slice axis every voxel would be on the surface. All three are symmetric in their arguments.

    Args:
        predicted: (Z, Y, X) bool, with at least one True.
        real: (Z, Y, X) bool, with at least one True.
        spacing_mm: voxel size (z, y, x).
    """
    spacing: Sequence[float] = spacing_mm
    if predicted.shape[0] == 1:
        predicted, real, spacing = predicted[0], real[0], spacing_mm[1:]
    predicted, real = _crop_to_both(predicted, real)
    edges_predicted, edges_real = get_mask_edges(predicted, real, crop=False)
    to_real = get_surface_distance(edges_predicted, edges_real, spacing=spacing)
    to_predicted = get_surface_distance(edges_real, edges_predicted, spacing=spacing)
    return SurfaceDistances(
        hd_mm=float(max(to_real.max(), to_predicted.max())),
        hd95_mm=float(max(np.percentile(to_real, _PERCENTILE), np.percentile(to_predicted, _PERCENTILE))),
        assd_mm=float(np.concatenate([to_real, to_predicted]).mean(dtype=np.float64)),
    )


def _crop_to_both(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    either = first | second
    box = []
    for axis in range(either.ndim):
        others = tuple(other for other in range(either.ndim) if other != axis)
        inside = np.flatnonzero(either.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return first[tuple(box)], second[tuple(box)]
