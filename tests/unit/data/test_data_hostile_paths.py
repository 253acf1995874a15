"""Paths that are no regular file or not readable are refused without blocking."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_files import nifti_bytes

from deploy.inputs.images import find_images
from maag.data.files.dicom_series import load_series
from maag.data.files.pictures import load_picture
from maag.data.files.volume import load_volume
from maag.errors import ConfigError, MissingDataError, StorageError


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.png", "x.dcm"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_pipes_folders_and_devices_are_refused_without_blocking(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    make(path)
    read = {".png": load_picture, ".dcm": lambda path: load_series([path])}.get(path.suffix, load_volume)
    with pytest.raises(StorageError, match="a folder, a pipe or a device"):
        read(path)
    with pytest.raises((MissingDataError, ConfigError)):
        find_images(path)
    with pytest.raises(MissingDataError):
        find_images(tmp_path)


def test_symlink_loops_are_listed_and_refused_on_reading(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").symlink_to("b.nii.gz")
    (tmp_path / "b.nii.gz").symlink_to("a.nii.gz")
    (tmp_path / "down").symlink_to(tmp_path)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(nifti_bytes()))
    assert [image.target.name for image in find_images(tmp_path)] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    with pytest.raises(StorageError, match="links form a loop"):
        load_volume(tmp_path / "a.nii.gz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    path.write_bytes(nifti_bytes())
    path.chmod(0)
    with pytest.raises(StorageError, match="ask for the right to read it"):
        load_volume(path)
