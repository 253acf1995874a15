from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bright_runner import BrightIsForeground, write_volume
from native_phantoms import NATIVE
from oblique import OBLIQUE, SHAPE
from squares import MakeCase, write_case

from maag.data.catalog import write_phantom


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of phantoms of each native format, not to be changed."""
    out = tmp_path_factory.mktemp("phantoms")
    for name, count in NATIVE.items():
        write_phantom(name, out / name, count, seed=2)
    return out


@pytest.fixture
def copy_of(phantoms: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy to spoil; of cines the first phase, for hundreds of files take seconds."""
    first_phase = shutil.ignore_patterns("*_ph[!0].*")
    return lambda name: Path(shutil.copytree(phantoms / name, tmp_path / name, ignore=first_phase))


@pytest.fixture
def data_dir(phantom_dir: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic patients in ACDC's layout, to change and spoil."""
    return Path(shutil.copytree(phantom_dir, tmp_path / "acdc"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of noise whose grid lies aslant."""
    path = tmp_path / "image.nii.gz"
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, OBLIQUE), path)
    return path


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


@pytest.fixture
def make_case(tmp_path: Path) -> MakeCase:
    return partial(write_case, tmp_path / "data")
