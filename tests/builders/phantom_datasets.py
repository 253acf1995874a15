"""Phantoms of the data sets in their native formats, edits to their files, and the problems that a check reports."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from maag.config.codec import override
from maag.config.schema import Config
from maag.data.catalog import preset
from maag.data.check import check

NATIVE_CASES = {"lvsc": 3, "chaos": 3, "chaos-ct": 2, "ppss": 4, "nnunet": 5, "folders": 5}
"""Number of cases per data set: few, but enough that each of its peculiarities occurs."""


def config_of(name: str, directory: Path) -> Config:
    """The fast preset of a data set, for a folder of its phantoms."""
    config = preset(name, "fast", directory)
    return override(config, {"data.unlabelled_value": 4}) if name == "folders" else config


def check_problems(name: str, directory: Path) -> str:
    """The problems that the check of a folder reports, one per line."""
    return "\n".join(check(directory, config_of(name, directory).data).problems)


def first_match(root: Path, pattern: str) -> Path:
    """The first file below `root` that matches a glob pattern."""
    return sorted(root.rglob(pattern))[0]


def modify_voxels(path: Path, change: object) -> None:
    """Overwrite a NIfTI file with the result of `change` on its (X, Y, Z) voxels."""
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    nib.save(nib.Nifti1Image(change(array), image.affine), path)  # type: ignore[operator]
