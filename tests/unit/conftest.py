"""One phantom data set of each layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from native_phantoms import NATIVE_CASES

from maag.data.catalog import write_phantom


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of phantoms of each native format, not to be changed."""
    out = tmp_path_factory.mktemp("phantoms")
    for name, count in NATIVE_CASES.items():
        write_phantom(name, out / name, count, seed=2)
    return out


@pytest.fixture
def copy_of(phantoms: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy to spoil; of cines the first phase, for hundreds of files take seconds."""
    first_phase = shutil.ignore_patterns("*_ph[!0].*")
    return lambda name: Path(shutil.copytree(phantoms / name, tmp_path / name, ignore=first_phase))
