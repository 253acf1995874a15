"""Checks of what a NIfTI header claims, before memory is allocated or anything is computed from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maag.errors import DataError

_MAX_VOXELS = 2**31
_GZIP_BEST_RATIO = 1032  # deflate's limit, so a larger claim is false
_MAX_EXTENSION_BYTES = 2**26
# An image with more voxels (512 x 512 x 256) and a better ratio than this is nearly constant, unlike any scan.
_BOMB_VOXELS = 2**26
_BOMB_RATIO = 200
_SINGULAR = 1e-6
_SPACING_AGREES = 0.01


class Fields(Protocol):
    """A header's fields by their NIfTI names."""

    def __getitem__(self, name: str) -> Any:
        """The value, or an array of values."""


def require_possible(header: Fields, dtype: np.dtype[Any], path: Path, file_bytes: int) -> None:
    """Raise DataError where a raw header claims more than a file of `file_bytes` can hold, or is not of an image."""
    shape = shape_of(header)
    voxels = math.prod(shape) if shape and min(shape) > 0 else 0
    offset = float(header["vox_offset"])
    possible = file_bytes * (_GZIP_BEST_RATIO if path.name.lower().endswith(".gz") else 1)
    if voxels <= 0 or voxels > _MAX_VOXELS or voxels * dtype.itemsize > possible:
        raise DataError(
            f"{path}: the header claims {' x '.join(map(str, shape))} voxels, more than a file of {file_bytes} bytes "
            f"can hold, more than {_MAX_VOXELS}, or none; the file is truncated or its header damaged: export it again"
        )
    if not 0 <= offset <= min(_MAX_EXTENSION_BYTES, possible):
        raise DataError(
            f"{path}: the header says that the voxels begin at byte {offset:g} of a file of {file_bytes} bytes; "
            "it is damaged: export it again"
        )
    if dtype.kind not in "iuf":
        raise DataError(
            f"{path}: voxels of type {_name_of(dtype)}; one real number per voxel is needed: export it as grey values"
        )
    sizes = [float(size) for size in header["pixdim"][1:4]][: len(shape)]
    if not all(np.isfinite(size) and size != 0 for size in sizes):
        given = " x ".join(f"{size:g}" for size in sizes)
        raise DataError(f"{path}: voxel size {given} mm in the header; it must be positive: correct it")


def require_scan(shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, file_bytes: int) -> None:
    """Raise DataError for a small file that unpacks to a huge, nearly constant image; not for labels."""
    voxels = math.prod(shape)
    if voxels > _BOMB_VOXELS and voxels * dtype.itemsize > _BOMB_RATIO * file_bytes:
        raise DataError(
            f"{path}: {file_bytes} bytes that unpack to {' x '.join(map(str, shape))} voxels, nearly all of "
            "them equal, unlike any scan; export it again, or unpack it to .nii if it is one"
        )


def require_invertible(affine: NDArray[np.float64], path: Path) -> None:
    """Raise DataError unless `affine` (4, 4) is finite and invertible."""
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        volume = abs(np.linalg.det(affine[:3, :3] / lengths))  # NaN fails the comparison below, as it should.
    if not (np.isfinite(affine).all() and np.isfinite(lengths).all() and volume > _SINGULAR):
        rows = ", ".join(f"[{' '.join(f'{value:g}' for value in row)}]" for row in affine[:3])
        raise DataError(
            f"{path}: the header's affine {rows} is singular or not finite; correct the "
            "sform or qform, or set its code to 0"
        )


def require_one_spacing(affine: NDArray[np.float64], spacing_mm: tuple[float, float, float], path: Path) -> None:
    """Raise DataError where the voxel sizes (z, y, x) of pixdim and of `affine` (4, 4) differ.

    Resampling and volumes in ml would use one, and other programs the other.
    """
    by_affine = np.linalg.norm(affine[:3, :3], axis=0)
    by_pixdim = np.array(spacing_mm[::-1])
    if not np.allclose(by_affine, by_pixdim, rtol=_SPACING_AGREES):
        sform, pixdim = (" x ".join(f"{size:g}" for size in sizes) for sizes in (by_affine, by_pixdim))
        raise DataError(
            f"{path}: the header's sform has voxels of {sform} mm and its pixdim of {pixdim} mm; correct the wrong "
            "one, or set the sform's code to 0"
        )


def shape_of(header: Fields) -> tuple[int, ...]:
    """Sides in the file's order; empty where the header does not have 1 to 7 dimensions."""
    count = int(header["dim"][0])
    return tuple(int(side) for side in header["dim"][1 : 1 + count]) if 1 <= count <= 7 else ()


def without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without trailing dimensions of 1 beyond the third."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _name_of(dtype: np.dtype[Any]) -> str:
    return f"colour ({', '.join(dtype.names)})" if dtype.names else dtype.name
