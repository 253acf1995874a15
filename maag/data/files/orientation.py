"""Orientation codes such as `LPS`, and images reoriented by exchanging and mirroring axes, without interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

_MIN_COSINE = 0.8
"""Of the angle between an axis and the patient's axis that its letter names, for example: about 37 degrees."""
_LINES = {"L": "LR", "R": "LR", "P": "PA", "A": "PA", "S": "SI", "I": "SI"}

Voxel = TypeVar("Voxel", bound=np.generic)


def orientation_code(affine: NDArray[np.float64]) -> str | None:
    """Where x, y and z of a (4, 4) voxel-to-world affine point, as `LPS`; None for oblique axes, which have no code."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    letters = aff2axcodes(affine)
    if not lengths.all() or None in letters:
        return None
    cosines = np.abs(affine[:3, :3] / lengths).max(axis=0)
    return "".join(letters) if (cosines >= _MIN_COSINE).all() else None


def axes_differ(affine: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether an axis of a (4, 4) voxel-to-world affine points more than about 37 degrees away from that of another.

    Unlike closest codes, which rounding can change near 45 degrees, this also compares oblique axes.
    """
    first, second = (matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (affine, other))
    return bool(((first * second).sum(axis=0) < _MIN_COSINE).any())


def orientation_differs(orientation: str | None, trained: Sequence[str]) -> bool:
    """Whether slices with this `orientation` are mirrored or rotated relative to every orientation in `trained`.

    The order of the slices does not count. False where the orientation is None or `trained` is empty.
    """
    return orientation is not None and bool(trained) and orientation[:2] not in {code[:2] for code in trained}


@dataclass(frozen=True, slots=True)
class Reorientation:
    """An exchange and mirroring of axes, which brings an image from one orientation to another."""

    source: str
    """Orientation code of the image."""
    target: str
    """Orientation code of the reoriented image."""

    @classmethod
    def between(cls, source: str, target: str) -> Reorientation:
        """From `source` to `target`; the order of the slices is kept where both run along the same line."""
        along_the_same = _LINES[source[2]] == _LINES[target[2]]
        return cls(source, target[:2] + source[2] if along_the_same else target)

    @property
    def keeps_slices(self) -> bool:
        """Whether each slice is only rotated or mirrored in its plane; else the volume is sliced along another axis."""
        return self.source[2] == self.target[2]

    def affine(self, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
        """(4, 4) voxel-to-world affine of the reoriented image, from that of the image of `shape` (Z, Y, X)."""
        return np.asarray(affine @ inv_ornt_aff(_transform(self.source, self.target), shape[::-1]))

    def spacing_mm(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Voxel size (z, y, x) of the reoriented image, from that of the image."""
        axes = _transform(self.source, self.target)[:, 0].astype(int).tolist()
        reoriented = dict(zip(axes, reversed(spacing_mm), strict=True))
        return reoriented[2], reoriented[1], reoriented[0]

    def apply(self, voxels: NDArray[Voxel]) -> NDArray[Voxel]:
        """(..., Z, Y, X) voxels from `source` to `target`; contiguous."""
        return _reoriented(voxels, self.source, self.target)

    def invert(self, voxels: NDArray[Voxel]) -> NDArray[Voxel]:
        """The inverse of `apply`; where `keeps_slices`, also for some of the slices alone."""
        return _reoriented(voxels, self.target, self.source)


def _reoriented(voxels: NDArray[Voxel], source: str, target: str) -> NDArray[Voxel]:
    return np.ascontiguousarray(apply_orientation(voxels.T, _transform(source, target)).T)


def _transform(source: str, target: str) -> NDArray[np.float64]:
    return np.asarray(ornt_transform(axcodes2ornt(source), axcodes2ornt(target)))
