"""Duplicate cases are refused in an error that names both files."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from threshold_runner import write_volume

from deploy.predicting.batch import plan
from maag.data.catalog import find_cases, preset
from maag.errors import ConfigError, DataError


@pytest.mark.parametrize(("name", "images"), [("folders", "images/*"), ("nnunet", "imagesTr/*")])
def test_a_case_with_two_images_is_refused(copy_of: Callable[[str], Path], name: str, images: str) -> None:
    root = copy_of(name)
    packed = sorted(root.rglob(images))[0]
    plain = packed.with_suffix("")
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    with pytest.raises(DataError) as caught:
        find_cases(preset(name, "fast", root).data, root)
    assert {f"{packed}", f"{plain}"} <= set(str(caught.value).replace(":", " ").replace(";", " ").split())


def test_a_duplicate_acdc_frame_is_refused(phantom_dir: Path, tmp_path: Path) -> None:
    data_dir = shutil.copytree(phantom_dir, tmp_path / "acdc")
    packed = sorted(data_dir.rglob("patient*_frame01.nii.gz"))[0]
    duplicate = data_dir / packed.name
    shutil.copy(packed, duplicate)
    with pytest.raises(DataError) as caught:
        find_cases(preset("acdc", "fast").data, data_dir)
    assert str(packed) in str(caught.value)
    assert f"{duplicate} " in str(caught.value)


def test_two_masks_of_an_acdc_frame_are_refused(phantom_dir: Path, tmp_path: Path) -> None:
    data_dir = shutil.copytree(phantom_dir, tmp_path / "acdc")
    packed = sorted(data_dir.rglob("patient*_frame01_gt.nii.gz"))[0]
    plain = packed.with_suffix("")
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    with pytest.raises(DataError) as caught:
        find_cases(preset("acdc", "fast").data, data_dir)
    assert str(caught.value).endswith(f" has two masks, {packed} and {plain}; keep one of them")


def test_two_dicom_series_of_one_patient_are_refused(copy_of: Callable[[str], Path]) -> None:
    root = copy_of("chaos-ct")
    first = sorted(root.rglob("DICOM_anon"))[0]
    duplicate = root / "again" / first.parent.name
    shutil.copytree(first.parent, duplicate)
    with pytest.raises(DataError) as caught:
        find_cases(preset("chaos-ct", "fast", root).data, root)
    assert str(first) in str(caught.value)
    assert str(duplicate / "DICOM_anon") in str(caught.value)


@pytest.mark.parametrize("other", ["{}_scribble.nii", "{}.nii.gz", "{}_scribble.png", "deeper/{}_scribble.nii.gz"])
def test_two_scribbles_of_one_case_in_a_folder_are_refused(phantom_dir: Path, tmp_path: Path, other: str) -> None:
    case = "patient001_frame01"
    (tmp_path / "anna" / "deeper").mkdir(parents=True)
    both = [tmp_path / "anna" / name.format(case) for name in ("{}_scribble.nii.gz", other)]
    for path in both:
        path.touch()
    with pytest.raises(DataError) as caught:
        find_cases(preset("acdc", "fast").data, phantom_dir, [str(tmp_path / "anna")])
    assert str(caught.value).startswith(f"case {case} has two scribbles, ")
    assert {f"{path}" for path in both} <= set(str(caught.value).replace(",", " ").replace(";", " ").split())


@pytest.mark.parametrize("folders", [("scans", "scans"), ("first", "second")])
def test_two_scans_of_one_name_to_segment_are_refused(tmp_path: Path, folders: tuple[str, str]) -> None:
    one, two = (tmp_path / folder for folder in folders)
    plain, packed = write_volume(one / "a.nii"), write_volume(two / "a.nii.gz")
    with pytest.raises(ConfigError) as caught:
        plan(sorted({one, two}), tmp_path / "out")
    assert str(caught.value).startswith(f"{plain} and {packed} have the same name")
    assert "predict them in two calls with different output folders" in str(caught.value)
