"""Cases with square masks, on voxels of 5 x 2 x 1 mm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cases import Case
from maag.evaluate.report import Subject

Labels = NDArray[np.uint8]
DATA = DataConfig(classes=("background", "a", "b"), size_px=(16, 16), spacing_mm=1.0)
SUBJECT = Subject(model="runs/one", dataset="acdc", split="val", split_digest="0123", checkpoint_kind="best")
MakeCase = Callable[..., Case]


def write_nifti(path: Path, array: NDArray[np.generic]) -> Path:
    """Write (Z, Y, X) voxels of 5 x 2 x 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([1.0, 2.0, 5.0, 1.0])), path)
    return path


def square(value: int, start: int = 2) -> Labels:
    """Labels of shape (2, 12, 12) with a 4 x 4 square of `value` in each slice, from row `start`."""
    labels = np.zeros((2, 12, 12), np.uint8)
    labels[:, start : start + 4, 2:6] = value
    return labels


def write_case(folder: Path, patient: int, frame: int, mask: Labels | None) -> Case:
    """Write an image of ones and, unless it is None, the mask."""
    name = f"patient{patient:03}_frame{frame:02}"
    image = write_nifti(folder / f"{name}.nii.gz", np.ones((2, 12, 12), np.float32))
    masks = () if mask is None else (write_nifti(folder / f"{name}_gt.nii.gz", mask),)
    return Case(case_id=name, patient_id=name[:10], frame=name[11:], images=(image,), masks=masks)
