"""Modify the voxels of a data set's files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np


def modify_voxels(path: Path, change: object) -> None:
    """Overwrite a NIfTI file with the result of `change` on its (X, Y, Z) voxels."""
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    nib.save(nib.Nifti1Image(change(array), image.affine), path)  # type: ignore[operator]


def first_with_suffix(data_dir: Path, suffix: str) -> Path:
    """The first file whose name ends with `suffix`."""
    return sorted(data_dir.rglob(f"*{suffix}"))[0]
