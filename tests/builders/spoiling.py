"""One of a data set's files, and changes to its voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np


def spoil(path: Path, change: object) -> None:
    """Write the NIfTI anew with what `change` makes of its (X, Y, Z) voxels."""
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    nib.save(nib.Nifti1Image(change(array), image.affine), path)  # type: ignore[operator]


def any_file(data_dir: Path, ending: str) -> Path:
    """The first of those whose names end so."""
    return sorted(data_dir.rglob(f"*{ending}"))[0]
