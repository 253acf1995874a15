"""DICOM slices as a volume, in the order in which they lie in the patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files.dicom_file import SliceGeometry, read_geometry, read_pixels
from maag.data.files.orientation import orientation_code
from maag.data.files.volume import Volume
from maag.errors import DataError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
SAME_MM = 1e-3
"""Nearer slices lie at one place."""
_UNEVEN = 0.25
"""Part of the usual distance by which another may differ from it."""
_MAX_VOXELS = 2**31


def order_of_slices(paths: Sequence[Path]) -> list[int]:
    """Places in `paths` from the lowest slice to the highest along their normal.

    Raises:
        DataError: slices of different shape, spacing or orientation, or two at one place.
    """
    return _order([read_geometry(path) for path in paths], paths)


def require_one_grid(slices: Sequence[SliceGeometry], paths: Sequence[Path]) -> None:
    """Raise DataError where the slices, read from `paths`, differ in shape, spacing or orientation."""
    first = slices[0]
    for path, other in zip(paths, slices, strict=True):
        if (
            other.shape != first.shape
            or not np.allclose(other.spacing_mm, first.spacing_mm, atol=SAME_MM)
            or not np.allclose(other.orientation, first.orientation, atol=SAME_MM)
        ):
            raise DataError(
                f"{path}: a slice of {other.shape[0]} x {other.shape[1]} pixels of {other.spacing_mm} mm, {paths[0]} "
                f"of the same volume has {first.shape[0]} x {first.shape[1]} of {first.spacing_mm} mm or another "
                "direction; take it out of the folder, or move it to one of its own"
            )


def _order(slices: Sequence[SliceGeometry], paths: Sequence[Path]) -> list[int]:
    require_one_grid(slices, paths)
    order = sorted(range(len(paths)), key=lambda place: slices[place].height_mm)
    for lower, higher in pairwise(order):
        if slices[higher].height_mm - slices[lower].height_mm < SAME_MM:
            raise DataError(
                f"{paths[higher]}: lies at the place of {paths[lower]}; keep one of them in the volume, and of phases "
                "or echoes move each to a folder of its own"
            )
    return order


def require_even(paths: Sequence[Path]) -> None:
    """Raise DataError where a slice is missing or lies aside, so that no grid can hold the series.

    Else as `order_of_slices`.
    """
    ordered, slices = _in_order(paths)
    heights, positions = np.array([each.height_mm for each in slices]), np.array([each.position for each in slices])
    gaps = np.diff(heights)
    if len(gaps) and _is_uneven(gaps).any():
        place = int(np.abs(gaps - np.median(gaps)).argmax())
        raise DataError(
            f"{ordered[place]}: {gaps[place]:.2f} mm from its neighbour {ordered[place + 1]}, other slices of the "
            f"series lie {np.median(gaps):.2f} mm apart; restore what is missing, or take out what does not belong"
        )
    if len(gaps):
        along = (heights - heights[0])[:, None] / (heights[-1] - heights[0])
        aside = np.linalg.norm(positions - positions[0] - along * (positions[-1] - positions[0]), axis=1)
        if aside.max() > _UNEVEN * np.median(gaps):
            raise DataError(
                f"{ordered[int(aside.argmax())]}: lies {aside.max():.2f} mm beside the line through its series' first "
                "and last slice; export the series without what does not belong"
            )


def load_series(paths: Sequence[Path]) -> Volume:
    """Read slices as a volume, lowest first; intensities rescaled as the headers say.

    Where a slice is missing, as those of another size are from volumes of LVSC, the others keep their usual distance:
    what lies beyond the gap is nearer in the volume than in the patient. `require_even` refuses that.

    Raises:
        DataError: as `order_of_slices`, or a file without readable grey pixels.
        StorageError: a file cannot be opened.
    """
    ordered, slices = _in_order(paths)
    shape = (len(slices), *slices[0].shape)
    if math.prod(shape) > _MAX_VOXELS:
        raise DataError(f"{ordered[0].parent}: {shape[0]} slices of {shape[1:]} pixels; nobody can use so many")
    # Not into a volume of the size that headers claim, which may be a lie that fills the memory.
    planes = [read_pixels(path) for path in ordered]
    spacing_mm, affine = _grid_of(slices)
    return Volume(np.stack(planes)[None], spacing_mm, affine, orientation_code(affine))


def grid_of_series(paths: Sequence[Path]) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Spacing (z, y, x) in mm and affine of `load_series`, from the headers alone. Raises as `order_of_slices`."""
    return _grid_of(_in_order(paths)[1])


def _in_order(paths: Sequence[Path]) -> tuple[list[Path], list[SliceGeometry]]:
    """The files from the lowest slice to the highest, and where each lies; every header is read once."""
    slices = [read_geometry(path) for path in paths]
    order = _order(slices, paths)
    return [paths[place] for place in order], [slices[place] for place in order]


def _grid_of(slices: Sequence[SliceGeometry]) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Spacing (z, y, x) in mm, and (4, 4) voxel (x, y, z) to world, of slices from the lowest to the highest."""
    first, last = slices[0], slices[-1]
    rows_mm, columns_mm = first.spacing_mm
    between_mm = _between_mm(slices)
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * columns_mm
    affine[:3, 1] = np.array(first.orientation[3:]) * rows_mm
    affine[:3, 2] = first.normal * between_mm
    if len(slices) > 1:
        # Not along the normal: slices of a tilted gantry are shifted against each other.
        way = np.array(last.position) - np.array(first.position)
        affine[:3, 2] = way * between_mm / (last.height_mm - first.height_mm)
    affine[:3, 3] = first.position
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    return (between_mm, rows_mm, columns_mm), affine


def _between_mm(slices: Sequence[SliceGeometry]) -> float:
    """The mean distance of neighbours, gaps where a slice is missing left out; of one slice what its header says."""
    if len(slices) == 1:
        return slices[0].thickness_mm
    gaps = np.diff([each.height_mm for each in slices])
    usual = gaps[~_is_uneven(gaps)]
    return float(usual.mean() if len(usual) else gaps.min())


def _is_uneven(gaps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which distances differ from most others."""
    return np.asarray(np.abs(gaps - np.median(gaps)) > _UNEVEN * np.median(gaps))
