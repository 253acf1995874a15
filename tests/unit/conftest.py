"""Phantom data sets in each native format, and files that need not survive a power failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from phantom_datasets import NATIVE_CASES

from maag.data.catalog import write_phantom


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Tests write many files atomically, none of which has to survive a power failure.

    A patch and no fake passed in: every writer ends in this one call, and none takes a parameter for it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


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
