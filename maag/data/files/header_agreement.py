"""Whether headers agree: those of labels with their image's, and those of a set's images with each other.

Voxels are used as stored, so disagreement is only reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files.nifti import affine_of, closest_orientation_of, is_nifti, open_nifti, orientation_of, spacing_of
from maag.data.files.orientation import orientation_differs

_SPACING_TOLERANCE = 0.01
_ORIGIN_TOLERANCE = 0.5
"""Voxels."""
_THICK = 1.1
"""Times the other sides of a voxel."""


def header_differences(labels: Path, image: Path, *, origins: bool = False) -> tuple[str, ...]:
    """A sentence for each way in which the header of `labels` differs from its `image`'s: orientation, spacing.

    With `origins` also the origin, where the orientations agree; ACDC's scribbles are published with another origin.
    Only NIfTI files are compared. Raises as `load_volume`.
    """
    if not (is_nifti(labels) and is_nifti(image)):
        return ()
    label_file, image_file = open_nifti(labels), open_nifti(image)
    own, other = closest_orientation_of(label_file), closest_orientation_of(image_file)
    spacing, image_spacing = spacing_of(label_file), spacing_of(image_file)
    found = []
    if own and other and own != other:
        found.append(
            f"{labels}: its header has orientation {own}, its image's {other}; voxels are used as stored, so if the "
            "headers are right the labels are mirrored or rotated: save them on the image's grid"
        )
    if not np.allclose(spacing, image_spacing, rtol=_SPACING_TOLERANCE):
        found.append(
            f"{labels}: its header has voxels of {_in_mm(spacing)}, its image's of {_in_mm(image_spacing)}; the "
            "image's are used: save the labels on the image's grid"
        )
    if origins and own and own == other:
        affine, image_affine = affine_of(label_file), affine_of(image_file)
        offset = np.linalg.solve(image_affine, affine[:, 3])[:3]  # of the first voxel, in voxels of the image
        if np.abs(offset).max() > _ORIGIN_TOLERANCE:
            found.append(
                f"{labels}: its header has origin {_origin(affine)} mm, its image's {_origin(image_affine)} mm; voxels "
                "are used as stored, so if the headers are right the labels are shifted: save them on the image's grid"
            )
    return tuple(found)


def minority_orientations(orientations: Mapping[str, str | None]) -> list[str]:
    """A sentence for each orientation of slices that is not the most frequent; by case, as `Volume.orientation`."""
    by_slices: dict[str, list[str]] = {}  # the order of slices does not count, as in orientation_differs
    for case, orientation in orientations.items():
        if orientation:
            by_slices.setdefault(orientation[:2], []).append(case)
    most, *others = sorted(by_slices.values(), key=len, reverse=True) or [[]]
    return [
        f"{_have(len(cases))} orientation {orientations[cases[0]]} in the header, {len(most)} have "
        f"{orientations[most[0]]}; the first is {cases[0]}: voxels are used as stored, so the segmentor sees mirrored "
        "or rotated slices; save all images in the same orientation"
        for cases in others
    ]


def _have(number: int) -> str:
    return "1 image has" if number == 1 else f"{number} images have"


def differing_orientations(orientations: Mapping[str, str | None], trained: Sequence[str]) -> str | None:
    """Which cases are oriented differently from the `trained` orientations, in words without a full stop.

    None where no case is, by `orientation_differs`.
    """
    odd = [case for case, orientation in orientations.items() if orientation_differs(orientation, trained)]
    if not odd:
        return None
    cases = "1 case is" if len(odd) == 1 else f"{len(odd)} cases are"
    return (
        f"{cases} oriented differently from the training images ({' or '.join(trained)}), and mirrored or rotated if "
        f"the headers are right; the first is {odd[0]} ({orientations[odd[0]]})"
    )


def header_orientation(images: Sequence[Path]) -> str | None:
    """As `Volume.orientation`, from the headers of NIfTI channels alone; None for other files.

    Raises as `load_volume`.
    """
    opened = (open_nifti(image) for image in images if is_nifti(image))
    recorded = next((source for source in opened if closest_orientation_of(source)), None)
    return orientation_of(recorded) if recorded else None


def minority_slice_axes(spacings: Mapping[str, tuple[float, float, float]]) -> list[str]:
    """A sentence for each axis but z that some images' voxels (z, y, x) are thickest along, if most are along z."""
    thickest = {case: _thickest(spacing) for case, spacing in spacings.items()}
    by_axis = Counter(thickest.values())
    if [axis for axis, _ in by_axis.most_common(1)] != ["z"]:
        return []
    return [
        f"{_have(by_axis[axis])} the thickest voxels along {axis}, {by_axis['z']} along z; the first is "
        f"{_first(thickest, axis)}: slices are taken across z, so these are sliced in another direction; save all "
        "images with the slices along z"
        for axis in ("x", "y")
        if by_axis[axis]
    ]


def _thickest(spacing_mm: tuple[float, float, float]) -> str | None:
    place = int(np.argmax(spacing_mm))
    others = [side for axis, side in enumerate(spacing_mm) if axis != place]
    return "zyx"[place] if spacing_mm[place] > _THICK * max(others) else None


def _first(by_case: Mapping[str, str | None], value: str) -> str:
    return next(case for case, found in by_case.items() if found == value)


def _origin(affine: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in affine[:3, 3])})"


def _in_mm(spacing: tuple[float, float, float]) -> str:
    return " x ".join(f"{side:.3g}" for side in reversed(spacing)) + " mm"
