"""DICOM slices as a volume, ordered along their normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files.dicom_file import SAME_MM, SliceGeometry, nearest_orthonormal
from maag.data.files.dicom_pixels import read_frames, read_pixels
from maag.data.files.dicom_slices import DicomSlice, read_slice
from maag.data.files.orientation import orientation_code
from maag.data.files.volume import Volume
from maag.errors import DataError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_UNEVEN = 0.25
"""Fraction of the usual distance by which another may differ."""
_EXPLAINED = 2.0
"""Rounded direction cosines tilt a slice by less than this times the error of one: sqrt(3), as it has three."""
_MAX_VOXELS = 2**31


Slices = Sequence[Path] | Sequence[DicomSlice]
"""Single-slice files, whose headers are read, or slices that are read already, which may be frames."""


def order_of_slices(slices: Slices) -> list[int]:
    """Indices into `slices`, from the lowest to the highest along their normal.

    Raises:
        DataError: slices of different shape, spacing or orientation, or two at one position.
        StorageError: a file cannot be opened.
    """
    return _order(_read(slices))


def in_order(slices: Slices) -> list[DicomSlice]:
    """Slices from the lowest to the highest. Raises as `order_of_slices`."""
    found = _read(slices)
    return [found[place] for place in _order(found)]


def require_one_grid(slices: Sequence[DicomSlice]) -> None:
    """Raise DataError if slices differ in shape, spacing or orientation."""
    first = slices[0]
    shape, spacing_mm = first.geometry.shape, first.geometry.spacing_mm
    for one in slices:
        if not one.geometry.has_grid_of(first.geometry):
            other = one.geometry
            raise DataError(
                f"{one.name}: has {other.shape[0]} x {other.shape[1]} pixels of {other.spacing_mm} mm, but "
                f"{first.name} of the same volume has {shape[0]} x {shape[1]} of {spacing_mm} mm or another "
                "orientation; remove it from the folder, or move it to its own"
            )


def _read(slices: Slices) -> list[DicomSlice]:
    return [one if isinstance(one, DicomSlice) else read_slice(one) for one in slices]


def _order(slices: Sequence[DicomSlice]) -> list[int]:
    require_one_grid(slices)
    order = sorted(range(len(slices)), key=lambda place: slices[place].geometry.height_mm)
    for lower, higher in pairwise(order):
        one, other = slices[higher], slices[lower]
        if one.geometry.height_mm - other.geometry.height_mm < SAME_MM:
            raise DataError(
                f"{one.name}: lies at the position of {other.name}; keep one of them in the volume, and of phases or "
                f"echoes {one.way_apart}"
            )
    return order


def require_even(slices: Slices) -> None:
    """Raise DataError if a slice is missing or out of line, so that no grid can hold the series.

    Otherwise raises as `order_of_slices`.
    """
    ordered = in_order(slices)
    heights = np.array([one.geometry.height_mm for one in ordered])
    positions = np.array([one.geometry.position for one in ordered])
    gaps = np.diff(heights)
    if len(gaps) and _is_uneven(gaps).any():
        place = int(np.abs(gaps - np.median(gaps)).argmax())
        raise DataError(
            f"{ordered[place].name}: {gaps[place]:.2f} mm from its neighbour {ordered[place + 1].name}, but other "
            f"slices of the series are {np.median(gaps):.2f} mm apart; restore missing slices, or remove those that do "
            "not belong"
        )
    if len(gaps):
        along = (heights - heights[0])[:, None] / (heights[-1] - heights[0])
        aside = np.linalg.norm(positions - positions[0] - along * (positions[-1] - positions[0]), axis=1)
        if aside.max() > _UNEVEN * np.median(gaps):
            raise DataError(
                f"{ordered[int(aside.argmax())].name}: lies {aside.max():.2f} mm off the line through the first and "
                "last slice of its series; export the series without slices that do not belong"
            )


def load_series(slices: Slices) -> Volume:
    """Read slices as a volume, lowest first, with intensities rescaled as in the headers.

    If a slice is missing, as LVSC volumes lack those of another size, the others keep their usual distance: slices
    beyond the gap are closer in the volume than in the patient. `require_even` refuses that.

    Raises:
        DataError: as `order_of_slices`, or a file without readable grey pixels.
        StorageError: a file cannot be opened.
    """
    ordered = in_order(slices)
    shape = (len(ordered), *ordered[0].geometry.shape)
    if math.prod(shape) > _MAX_VOXELS:
        raise DataError(f"{ordered[0].path.parent}: {shape[0]} slices of {shape[1:]} pixels; nobody can use so many")
    # Allocated after reading: the size that headers claim could exhaust the memory.
    planes = _planes_of(ordered)
    spacing_mm, affine = _grid_of([one.geometry for one in ordered])
    return Volume(np.stack(planes)[None], spacing_mm, affine, orientation_code(affine))


def grid_of_series(slices: Slices) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Spacing (z, y, x) in mm and affine of `load_series`, from the headers alone. Raises as `order_of_slices`."""
    return _grid_of([one.geometry for one in in_order(slices)])


def _planes_of(slices: Sequence[DicomSlice]) -> list[NDArray[np.float32]]:
    """(rows, columns) of each slice; each file is read once."""
    planes: dict[tuple[Path, int | None], NDArray[np.float32]] = {}
    frames: dict[Path, dict[int, tuple[float, float]]] = {}
    for one in slices:
        if one.frame is None:
            planes[one.path, None] = read_pixels(one.path)
        else:
            frames.setdefault(one.path, {})[one.frame] = one.scale
    for path, scales in frames.items():
        read = read_frames(path, list(scales), list(scales.values()))
        planes |= {(path, frame): plane for frame, plane in zip(scales, read, strict=True)}
    return [planes[one.path, one.frame] for one in slices]


def _grid_of(slices: Sequence[SliceGeometry]) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Spacing (z, y, x) in mm, and (4, 4) voxel (x, y, z) to world, of slices from the lowest to the highest."""
    first, last = slices[0], slices[-1]
    rows_mm, columns_mm = first.spacing_mm
    between_mm = _between_mm(slices)
    directions = np.reshape(first.orientation, (2, 3))
    step_mm = first.normal * between_mm
    if len(slices) > 1:
        # Not along the normal: a tilted gantry shifts slices against each other.
        way = np.array(last.position) - np.array(first.position)
        step_mm = way * between_mm / (last.height_mm - first.height_mm)
        along = step_mm / np.linalg.norm(step_mm)
        # Positions span more than one pixel, so they give the normal more precisely than rounded cosines.
        if np.abs(directions @ along).max() <= _EXPLAINED * first.rounding:
            directions = nearest_orthonormal(directions - np.outer(directions @ along, along))
            between_mm = float(np.linalg.norm(step_mm))
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([directions[0] * columns_mm, directions[1] * rows_mm, step_mm])
    affine[:3, 3] = first.position
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    return (between_mm, rows_mm, columns_mm), affine


def _between_mm(slices: Sequence[SliceGeometry]) -> float:
    """Mean distance of neighbours without gaps for missing slices; for a single slice, the thickness in its header."""
    if len(slices) == 1:
        return slices[0].thickness_mm
    gaps = np.diff([each.height_mm for each in slices])
    usual = gaps[~_is_uneven(gaps)]
    return float(usual.mean() if len(usual) else gaps.min())


def _is_uneven(gaps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of the distances that differ from the median."""
    return np.asarray(np.abs(gaps - np.median(gaps)) > _UNEVEN * np.median(gaps))
