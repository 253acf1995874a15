"""Images as arrays of slices, and labels as in the file, both from NIfTI."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files.nifti import (
    affine_of,
    closest_orientation_of,
    image_spacing_of,
    open_nifti,
    orientation_of,
    read_array,
    shape_of,
    spacing_of,
)
from maag.data.files.nifti_header import require_scan, without_trailing_ones
from maag.data.files.orientation import Reorientation, axes_differ
from maag.errors import DataError

_PLAIN_DIMENSIONS = 3
_ROUNDING = 1e-3
_WHITE = 255
_LISTED = 10


@dataclass(frozen=True, eq=False, slots=True)
class Volume:
    """An image as an array of slices."""

    voxels: NDArray[np.float32]
    """(C, Z, Y, X): channels, slices, rows, columns; a NIfTI's (x, y, z) transposed."""
    spacing_mm: tuple[float, float, float]
    """Voxel size (z, y, x)."""
    affine: NDArray[np.float64]
    """(4, 4) voxel (x, y, z) to world in mm."""
    orientation: str | None = None
    """Orientation code such as `LPS`; None where it is unknown or the axes are oblique."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        _, depth, height, width = self.voxels.shape
        return depth, height, width

    def reoriented(self, reorientation: Reorientation) -> Volume:
        """The same image in another orientation."""
        spacing_mm = reorientation.spacing_mm(self.spacing_mm)
        affine = reorientation.affine(self.affine, self.shape)
        return Volume(reorientation.apply(self.voxels), spacing_mm, affine, reorientation.target)


def load_volume(path: Path, time: int | None = None) -> Volume:
    """Read an image with one channel.

    Args:
        path: a NIfTI file; a 2-D image is one slice.
        time: index of the volume in a 4-D image; None for others.

    Raises:
        DataError: not NIfTI, truncated, with impossible dimensions or not two or three, without a positive spacing or
            with two different ones, or with voxels that are NaN or infinite.
        StorageError: the file cannot be opened.
    """
    source = open_nifti(path)
    require_scan(source.shape, source.get_data_dtype(), path, path.stat().st_size)
    # Overflows become infinite, which is reported below.
    with np.errstate(all="ignore"):
        voxels = read_array(source, path, time).astype(np.float32, copy=False)
    bad = int(voxels.size - np.isfinite(voxels).sum())
    if bad:
        raise DataError(
            f"{path}: {bad} of {voxels.size} voxels are NaN or infinite; replace them, or leave the case out"
        )
    return Volume(voxels[None], image_spacing_of(source, path), affine_of(source), orientation_of(source))


def load_channels(paths: Sequence[Path], time: int | None = None) -> Volume:
    """Read an image with one file per channel, all on one grid.

    Affine and orientation are those of the first file whose header records them.

    Raises:
        DataError: as `load_volume`, or the files differ in shape, spacing or, as far as headers record it, orientation.
        StorageError: a file cannot be opened.
    """
    volumes = [load_volume(path, time) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths, volumes, strict=True):
        if volume.shape != first.shape or not np.allclose(volume.spacing_mm, first.spacing_mm, rtol=1e-3):
            raise DataError(
                f"{path}: a channel of {volume.shape[::-1]} voxels of {volume.spacing_mm[::-1]} mm beside {paths[0]} "
                f"of {first.shape[::-1]} of {first.spacing_mm[::-1]} mm (x, y, z); resample them to one grid"
            )
    if len(volumes) == 1:
        return first
    codes = [closest_orientation_of(open_nifti(path)) for path in paths]
    recorded = [found for found in zip(paths, volumes, codes, strict=True) if found[2]]
    reference, grid, orientation = recorded[0] if recorded else (paths[0], first, None)
    for path, volume, other in recorded:
        if axes_differ(volume.affine, grid.affine):
            raise DataError(
                f"{path}: a channel with orientation {other} in its header beside {reference} with {orientation} and "
                "other axes, so one is mirrored or rotated; resample them to one grid"
            )
    return replace(grid, voxels=np.concatenate([volume.voxels for volume in volumes]))


def num_volumes(path: Path) -> int:
    """Number of volumes in a 4-D image; 1 for others. Raises as `load_volume`, and DataError for 5-D."""
    shape = without_trailing_ones(open_nifti(path).shape)
    if len(shape) > _PLAIN_DIMENSIONS + 1:
        raise DataError(
            f"{path}: {len(shape)}-D of shape {shape}; a 3-D volume or a cine is needed: save each channel as a file"
        )
    return shape[3] if len(shape) > _PLAIN_DIMENSIONS else 1


def load_geometry(path: Path) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape (Z, Y, X) and spacing (z, y, x) in mm, from the header alone. Raises as `load_volume`."""
    source = open_nifti(path)
    width, height, depth = shape_of(source, path)
    return (depth, height, width), image_spacing_of(source, path)


def load_labels(path: Path, allowed: Collection[int]) -> tuple[NDArray[np.uint8], tuple[float, float, float]]:
    """Read a mask or scribble: (Z, Y, X) uint8 labels as in the file, and the spacing (z, y, x) in mm.

    Raises:
        DataError: as `load_volume`, or a value is not in `allowed`.
        StorageError: the file cannot be opened.
    """
    source = open_nifti(path)
    values = read_array(source, path)
    return as_labels(values, allowed, path), spacing_of(source)


def near_integers(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Round values within 0.001 of an integer, as a header's scale may leave them; keep others."""
    if values.dtype.kind != "f":
        return values
    nearest = np.rint(values)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return np.where(np.abs(values - nearest) <= _ROUNDING, nearest, values)


def as_labels(values: NDArray[np.generic], allowed: Collection[int], path: Path) -> NDArray[np.uint8]:
    """The values of the file `path` as uint8 labels of the same shape, after `near_integers`.

    Raises DataError when a value is not in `allowed`.
    """
    labels = near_integers(values)
    with np.errstate(invalid="ignore"):  # NaN, which is reported below
        small = labels.astype(np.uint8)
    same = labels.dtype == small.dtype or np.array_equal(small, labels)
    for value, count in (_counts(small) if same else _sorted_counts(labels)).items():
        if value not in allowed:
            way_out = (
                f"save a black and white mask with 1 where it has {_WHITE}"
                if {*np.unique(labels).tolist()} == {0, _WHITE} and 1 in allowed
                else "correct the labels (`maag data renumber` changes them), or data.classes and "
                'data.unlabelled_value, in nnU-Net\'s dataset.json "labels" and "ignore"'
            )
            raise DataError(f"{path}: {count} voxels have label {value:g}, allowed are {_listed(allowed)}; {way_out}")
    return small


def _counts(labels: NDArray[np.uint8]) -> dict[float, int]:
    """Number of voxels of each label in (Z, Y, X) or (Y, X) labels."""
    # bincount, as sorting a volume takes several times as long; by slice, as NumPy counts 64-bit copies.
    counts = sum((np.bincount(part.ravel(), minlength=256) for part in labels), np.zeros(256, np.int64))
    return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist()}


def _sorted_counts(values: NDArray[np.generic]) -> dict[float, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _listed(values: Collection[int]) -> str:
    """`0, 1, 2, 5`, with `0 to 254` for a long run."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > _LISTED else ", ".join(map(str, run)) for run in runs)
