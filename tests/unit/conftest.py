"""Phantom data sets in each native format."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from native_phantoms import NATIVE_CASES

from maag.data.catalog import write_phantom


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a phantom data set per native format; tests must not modify it."""
    out = tmp_path_factory.mktemp("phantoms")
    for name, count in NATIVE_CASES.items():
        write_phantom(name, out / name, count, seed=2)
    return out


@pytest.fixture
def copy_of(phantoms: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a phantom data set for a test to modify; of cines only the first phase, to save seconds."""
    first_phase = shutil.ignore_patterns("*_ph[!0].*")
    return lambda name: Path(shutil.copytree(phantoms / name, tmp_path / name, ignore=first_phase))
