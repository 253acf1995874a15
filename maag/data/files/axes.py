"""To where the axes of an image point, and an image brought onto those of others without a voxel being computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

_PLAIN = 0.8
"""The cosine of 37 degrees: by how much an axis may be off the patient's and still be called after it."""
_LINES = {"L": "LR", "R": "LR", "P": "PA", "A": "PA", "S": "SI", "I": "SI"}

Voxel = TypeVar("Voxel", bound=np.generic)


def plain_axes(affine: NDArray[np.float64]) -> str | None:
    """To where x, y and z of a (4, 4) voxel to world point, as `LPS`; None of oblique axes, which letters misname."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    letters = aff2axcodes(affine)
    if not lengths.all() or None in letters:
        return None
    cosines = np.abs(affine[:3, :3] / lengths).max(axis=0)
    return "".join(letters) if (cosines >= _PLAIN).all() else None


def lies_otherwise(axes: str | None, trained: Sequence[str]) -> bool:
    """Whether slices of an image with these `axes` are mirrored or turned against all of those with `trained` ones.

    In whatever order they are. Where nothing tells, of the image or of these, they are taken to lie alike.
    """
    return axes is not None and bool(trained) and axes[:2] not in {other[:2] for other in trained}


@dataclass(frozen=True, slots=True)
class Reorientation:
    """Axes exchanged and mirrored."""

    axes: str
    """Those of an image, `RAS` say."""
    wanted: str

    @classmethod
    def onto(cls, axes: str, wanted: str) -> Reorientation:
        """That lays slices of an image with `axes` as those of one with `wanted`, in the order that they have."""
        along_the_same = _LINES[axes[2]] == _LINES[wanted[2]]
        return cls(axes, wanted[:2] + axes[2] if along_the_same else wanted)

    @property
    def keeps_slices(self) -> bool:
        """Whether slices stay what they are, but for how each lies; else the volume is cut in another direction."""
        return self.axes[2] == self.wanted[2]

    def affine(self, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
        """(4, 4) voxel to world of an image of `shape` (Z, Y, X) with this `affine`, when it is laid."""
        return np.asarray(affine @ inv_ornt_aff(_way(self.axes, self.wanted), shape[::-1]))

    def spacing_mm(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Voxel size (z, y, x) of an image of this size, when it is laid."""
        laid = dict(zip(_way(self.axes, self.wanted)[:, 0].astype(int).tolist(), reversed(spacing_mm), strict=True))
        return laid[2], laid[1], laid[0]

    def there(self, voxels: NDArray[Voxel]) -> NDArray[Voxel]:
        """(..., Z, Y, X) voxels with `axes`, laid as those that are wanted; contiguous."""
        return _laid(voxels, self.axes, self.wanted)

    def back(self, voxels: NDArray[Voxel]) -> NDArray[Voxel]:
        """What `there` was given; where slices are kept, also of any other (..., Y, X) that are made of them."""
        return _laid(voxels, self.wanted, self.axes)


def _laid(voxels: NDArray[Voxel], axes: str, wanted: str) -> NDArray[Voxel]:
    return np.ascontiguousarray(apply_orientation(voxels.T, _way(axes, wanted)).T)


def _way(axes: str, wanted: str) -> NDArray[np.float64]:
    return np.asarray(ornt_transform(axcodes2ornt(axes), axcodes2ornt(wanted)))
