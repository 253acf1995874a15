"""Whether headers agree on how labels and their image, and the images of a set, lie; voxels are used as stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files.axes import lies_otherwise
from maag.data.files.nifti import affine_of, is_nifti, open_nifti, orientation_of, plain_axes_of, spacing_of

_SPACING_TOLERANCE = 0.01
_ORIGIN_TOLERANCE = 0.5
"""Voxels."""
_THICK = 1.1
"""Times the other sides of a voxel."""


def differences(labels: Path, image: Path, *, origins: bool = False) -> tuple[str, ...]:
    """A sentence for each thing in which the header of `labels` differs from that of its `image`: axes, spacing.

    With `origins` also where they begin, if axes agree; ACDC's scribbles are published with another origin. Files other
    than NIfTI are not compared. Raises as `load_volume`.
    """
    if not (is_nifti(labels) and is_nifti(image)):
        return ()
    own, other = open_nifti(labels), open_nifti(image)
    (axes, spacing), (image_axes, image_spacing) = ((orientation_of(each), spacing_of(each)) for each in (own, other))
    found = []
    if axes and image_axes and axes != image_axes:
        found.append(
            f"{labels}: its header has axes {axes}, its image's {image_axes}; voxels are taken as they are stored, so "
            "if the headers are right it is mirrored or turned: save it on the image's grid"
        )
    if not np.allclose(spacing, image_spacing, rtol=_SPACING_TOLERANCE):
        found.append(
            f"{labels}: its header has voxels of {_in_mm(spacing)}, its image's of {_in_mm(image_spacing)}; the "
            "image's count: save it on the image's grid"
        )
    if origins and axes and axes == image_axes:
        here, there = affine_of(own), affine_of(other)
        beside = np.linalg.solve(there, here[:, 3])[:3]  # its first voxel's place, in voxels of the image
        if np.abs(beside).max() > _ORIGIN_TOLERANCE:
            found.append(
                f"{labels}: its header has the origin {_point(here)} mm, its image's {_point(there)} mm; voxels are "
                "taken as they are stored, so if the headers are right it is of another place: save it on the image's "
                "grid"
            )
    return tuple(found)


def odd_axes(axes: Mapping[str, str | None]) -> list[str]:
    """A sentence for each way in which slices of some images lie otherwise than of most: by case, as `Volume.axes`."""
    by_slices: dict[str, list[str]] = {}  # by what lies_otherwise goes by
    for case, found in axes.items():
        if found:
            by_slices.setdefault(found[:2], []).append(case)
    most, *others = sorted(by_slices.values(), key=len, reverse=True) or [[]]
    return [
        f"{_have(len(odd))} axes {axes[odd[0]]} in the header, {len(most)} have {axes[most[0]]}; the first is "
        f"{odd[0]}: voxels are taken as they are stored, so to the segmentor they are mirrored or turned; "
        "save all on the same axes"
        for odd in others
    ]


def _have(number: int) -> str:
    return "1 image has" if number == 1 else f"{number} images have"


def lying_otherwise(axes: Mapping[str, str | None], trained: Sequence[str]) -> str | None:
    """Which cases have slices that lie otherwise than of images with the `trained` axes, in words without a full stop.

    None where there are none such: those without axes are taken to lie alike, and all where `trained` is empty.
    """
    odd = [case for case, found in axes.items() if lies_otherwise(found, trained)]
    if not odd:
        return None
    lie = "1 case lies" if len(odd) == 1 else f"{len(odd)} cases lie"
    return (
        f"{lie} otherwise than the images that train, which have axes {' or '.join(trained)} in their headers; the "
        f"first is {odd[0]} with {axes[odd[0]]}, so that it is mirrored or turned if the headers are right"
    )


def axes_in(image: Path) -> str | None:
    """As `Volume.axes`, from the header alone of a NIfTI; None of other files. Raises as `load_volume`."""
    return plain_axes_of(open_nifti(image)) if is_nifti(image) else None


def odd_slices(spacings: Mapping[str, tuple[float, float, float]]) -> list[str]:
    """A sentence for each axis but z that voxels (z, y, x) are thickest along in some images, if most are along z."""
    thickest = {case: _thickest(spacing) for case, spacing in spacings.items()}
    by_axis = Counter(thickest.values())
    if [axis for axis, _ in by_axis.most_common(1)] != ["z"]:
        return []
    return [
        f"{_have(by_axis[axis])} the thickest voxels along {axis}, {by_axis['z']} along z; the first is "
        f"{_first(thickest, axis)}: slices are taken across z, so these are cut in another direction; save all with "
        "the slices along z"
        for axis in ("x", "y")
        if by_axis[axis]
    ]


def _thickest(spacing_mm: tuple[float, float, float]) -> str | None:
    place = int(np.argmax(spacing_mm))
    others = [side for axis, side in enumerate(spacing_mm) if axis != place]
    return "zyx"[place] if spacing_mm[place] > _THICK * max(others) else None


def _first(by_case: Mapping[str, str | None], value: str) -> str:
    return next(case for case, found in by_case.items() if found == value)


def _point(affine: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in affine[:3, 3])})"


def _in_mm(spacing: tuple[float, float, float]) -> str:
    return " x ".join(f"{side:.3g}" for side in reversed(spacing)) + " mm"
