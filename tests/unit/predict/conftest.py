"""A fake model, a folder of scans, and labels of a DICOM series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_seg_sources import CLASSES, SHAPE
from numpy.typing import NDArray
from threshold_runner import ThresholdRunner, write_volume


@pytest.fixture
def runner() -> ThresholdRunner:
    return ThresholdRunner()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    write_volume(folder / "a.nii.gz", 1)
    write_volume(folder / "deep" / "er" / "b.nii", 2)
    write_volume(folder / "deep" / "._b.nii.gz", 3)
    (folder / "notes.txt").write_text("not a volume")
    (folder / "notes.pdf").write_text("not a volume")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    """Random labels for the sources in `dicom_seg_sources`; the third slice is background."""
    values = np.random.default_rng(0).integers(0, len(CLASSES), SHAPE).astype(np.uint8)
    values[2] = 0
    return values
