"""A stand-in for a model, and a folder of scans."""

from __future__ import annotations

from pathlib import Path

import pytest
from bright_runner import BrightIsForeground, write_volume


@pytest.fixture
def runner() -> BrightIsForeground:
    return BrightIsForeground()


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
