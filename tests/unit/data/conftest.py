"""A copy of the phantom data set, and an image file."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from oblique_grid import OBLIQUE, SHAPE


@pytest.fixture
def data_dir(phantom_dir: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic patients in ACDC's layout, for a test to modify."""
    return Path(shutil.copytree(phantom_dir, tmp_path / "acdc"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A noise image on an oblique grid."""
    path = tmp_path / "image.nii.gz"
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, OBLIQUE), path)
    return path
