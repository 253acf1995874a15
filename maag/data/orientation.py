"""Whether the headers of labels and of their image agree on how they lie; what is used are the voxels as stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maag.data.nifti import is_nifti
from maag.data.volume import load_orientation

_SPACING_TOLERANCE = 0.01


def differences(labels: Path, image: Path) -> tuple[str, ...]:
    """A sentence for each thing in which the header of `labels` differs from that of its `image`: axes, spacing.

    Origins are not compared, for scribbles are published with others; nor are files other than NIfTI. Raises as
    `load_volume`.
    """
    if not (is_nifti(labels) and is_nifti(image)):
        return ()
    (axes, spacing), (image_axes, image_spacing) = load_orientation(labels), load_orientation(image)
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
    return tuple(found)


def _in_mm(spacing: tuple[float, float, float]) -> str:
    return " x ".join(f"{side:.3g}" for side in reversed(spacing)) + " mm"
