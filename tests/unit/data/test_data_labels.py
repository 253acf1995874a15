"""Labels keep the exact grid of their image; labels outside the classes are refused."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from oblique_grid import OBLIQUE, SHAPE

from maag.data.files.nifti_writing import save_labels
from maag.data.files.volume import load_labels
from maag.errors import DataError


@pytest.mark.parametrize("forms", [(1, 0), (0, 2), (1, 4), (0, 0)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_labels_keep_the_grid_of_their_image(tmp_path: Path, forms: tuple[int, int], suffix: str) -> None:
    source = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    source.header.set_zooms((1.2, 1.3, 8.0))
    if forms[0]:
        source.header.set_qform(np.diag([1.2, 1.3, 8.0, 1]) + np.eye(4, k=3) * 5, forms[0])
    if forms[1]:
        source.header.set_sform(OBLIQUE, forms[1])
    source.header.set_xyzt_units("mm", "sec")
    like = tmp_path / f"like{suffix}"
    nib.save(source, like)
    labels = np.random.default_rng(0).integers(0, 4, SHAPE[::-1]).astype(np.uint8)
    out = tmp_path / "deep" / f"labels{suffix}"
    save_labels(out, labels, like, ("background", "RV", "MYO", "LV"))
    before, after = nib.load(like).header, nib.load(out).header
    for field in ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "xyzt_units"):
        np.testing.assert_array_equal(before[field], after[field])
    np.testing.assert_array_equal(nib.load(like).affine, nib.load(out).affine)
    assert after.get_data_dtype() == np.uint8
    assert b"2 MYO" in bytes(after["descrip"])
    assert np.array_equal(load_labels(out, range(4))[0], labels)


def test_labels_do_not_inherit_the_scaling_or_display_range_of_their_image(tmp_path: Path) -> None:
    source = nib.Nifti1Image(np.arange(189, dtype=np.int16).reshape(SHAPE), OBLIQUE)
    source.header.set_slope_inter(0.25, -1000)
    source.header["cal_min"], source.header["cal_max"] = -1000, 3000
    nib.save(source, tmp_path / "like.nii.gz")
    save_labels(tmp_path / "labels.nii.gz", np.full(SHAPE[::-1], 3, np.uint8), tmp_path / "like.nii.gz", ("a", "b"))
    content = gzip.decompress((tmp_path / "labels.nii.gz").read_bytes())
    assert struct.unpack("<2f", content[112:120]) == (1, 0)  # slope and intercept
    assert struct.unpack("<2f", content[124:132]) == (0, 0)  # the display range
    assert set(content[352:]) == {3}


@pytest.mark.parametrize("value", [5, -1, 0.5, 0.998, np.inf, np.nan])
def test_a_label_outside_the_classes_is_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "mask.nii.gz"
    array = np.zeros(SHAPE, np.float32)
    array[:3, 0, 0] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    allowed = "allowed are 0, 1, 4; correct the labels (`maag data renumber` changes them), or data.classes"
    with pytest.raises(DataError, match=re.escape(f"mask.nii.gz: 3 voxels have label {value:g}, {allowed}")):
        load_labels(path, {0, 1, 4})


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int64, np.float32, np.float64])
def test_labels_of_any_stored_type_are_read_alike(tmp_path: Path, dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 5, SHAPE)
    nib.save(nib.Nifti1Image(array.astype(dtype), np.eye(4), dtype=dtype), tmp_path / "mask.nii.gz")
    labels, _ = load_labels(tmp_path / "mask.nii.gz", range(5))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, array.T)
    with pytest.raises(DataError, match=rf"{(array == 4).sum()} voxels have label 4, allowed are 0, 1, 2, 3;"):
        load_labels(tmp_path / "mask.nii.gz", range(4))


def test_labels_are_not_written_at_the_slowest_gzip_level(tmp_path: Path) -> None:
    image, path = tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4)), image)
    save_labels(path, np.zeros(SHAPE[::-1], np.uint8), image, ["background"])
    slowest_level = 2  # RFC 1952's mark of level 9, which took 26 s for 512 x 512 x 400 ragged labels
    assert path.read_bytes()[8] != slowest_level


def test_many_allowed_labels_are_reported_as_a_range(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(np.full(SHAPE, 200, np.uint8), np.eye(4)), path)
    with pytest.raises(DataError, match=r"189 voxels have label 200, allowed are 0 to 104, 255; correct the labels"):
        load_labels(path, {*range(105), 255})


def test_labels_whose_shape_differs_from_their_image_are_refused(image: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="they must agree"):
        save_labels(tmp_path / "out.nii.gz", np.zeros((3, 3, 3), np.uint8), image, ("background",))
    assert not (tmp_path / "out.nii.gz").exists()
