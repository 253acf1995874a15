"""Reading of NIfTI volumes, and the errors for unusable files."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from oblique_grid import OBLIQUE, SHAPE
from PIL import Image
from scipy.spatial.transform import Rotation

from maag.data.files.label_files import geometry_of, load_image
from maag.data.files.nifti import is_nifti
from maag.data.files.nifti_writing import save_labels, save_volume
from maag.data.files.volume import load_geometry, load_volume
from maag.errors import DataError, StorageError


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    return path


def test_the_axes_of_a_volume_are_slices_rows_columns(image: Path) -> None:
    volume = load_volume(image)
    assert volume.voxels.shape == (1, 3, 9, 7)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels[0], np.asarray(nib.load(image).dataobj).T)
    np.testing.assert_allclose(volume.spacing_mm, np.linalg.norm(OBLIQUE[:3, :3], axis=0)[::-1], rtol=1e-5)


@pytest.mark.parametrize("name", ["image.nii.gz", "picture.png"])
def test_the_geometry_of_a_file_matches_its_loaded_image(image: Path, tmp_path: Path, name: str) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "picture.png")
    volume = load_image([tmp_path / name])
    assert volume.shape[1] != volume.shape[2]
    assert geometry_of(tmp_path / name) == (volume.shape, volume.spacing_mm)


def test_a_qform_alone_gives_affine_and_orientation(tmp_path: Path) -> None:
    affine = np.diag([-1.5, -2.0, 8.0, 1.0]) + np.eye(4, k=3) * 5
    save_volume(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.uint8), affine, sform=False)
    assert int(nib.load(tmp_path / "a.nii.gz").header["sform_code"]) == 0
    volume = load_volume(tmp_path / "a.nii.gz")
    assert (volume.orientation, volume.spacing_mm) == ("LPS", (8.0, 2.0, 1.5))
    np.testing.assert_allclose(volume.affine, affine)


def test_an_oblique_slice_takes_its_thickness_from_the_affine(tmp_path: Path) -> None:
    rotation = Rotation.from_euler("xyz", [0.5, 0.3, 0.2]).as_matrix() @ np.diag([1.2, 1.3, 8.0])
    affine = np.eye(4)
    affine[:3, :3] = rotation
    nib.save(nib.Nifti1Image(np.zeros(SHAPE[:2], np.int16), affine), tmp_path / "slice.nii.gz")
    assert load_volume(tmp_path / "slice.nii.gz").spacing_mm == pytest.approx((8.0, 1.3, 1.2))


def test_a_cine_of_one_frame_is_read_as_a_volume(tmp_path: Path) -> None:
    path = tmp_path / "frame.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 1), np.int16), np.eye(4)), path)
    assert load_volume(path).shape == SHAPE[::-1]
    save_labels(tmp_path / "out.nii.gz", np.zeros(SHAPE[::-1], np.uint8), path, ("background",))


@pytest.mark.parametrize("name", ["A.NII.GZ", "a.nii.GZ", "A.NII"])
def test_file_extensions_are_case_insensitive(tmp_path: Path, name: str) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    save_volume(tmp_path / name, array, np.eye(4))
    np.testing.assert_array_equal(load_volume(tmp_path / name).voxels[0], array)


def test_a_header_with_contradicting_spacings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.nii.gz"
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), None)
    image.header.set_zooms((1, 1, 1))
    image.header.set_sform(np.diag([1.5625, 1.5625, 10, 1]), 1)
    nib.save(image, path)
    sentence = r"two\.nii\.gz: .* sform has voxels of 1\.5625 x 1\.5625 x 10 mm and its pixdim of 1 x 1 x 1 mm"
    with pytest.raises(DataError, match=sentence):
        load_volume(path)
    with pytest.raises(DataError, match=sentence):
        load_geometry(path)
    image.header["sform_code"] = 0
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), path)
    assert load_volume(path).spacing_mm == (1, 1, 1)


def test_a_nearly_singular_affine_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), None)
    image.header.set_sform([[1, 1, 0, 0], [0, 1e-7, 0, 0], [0, 0, 8, 0], [0, 0, 0, 1]], 1)
    nib.save(image, tmp_path / "flat.nii.gz")
    with pytest.raises(DataError, match=r"flat\.nii\.gz: the header's affine .* is singular"):
        load_volume(tmp_path / "flat.nii.gz")


def bad_header(fields: bytes, offset: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:offset] + fields + content[offset + len(fields) :]


HUGE_SHAPE = bad_header(struct.pack("<8h", 3, 32000, 32000, 32000, 1, 1, 1, 1), 40)
ZERO_SPACING = bad_header(struct.pack("<4f", 1, 0, 1, 1), 76)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "export it again"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "not a readable NIfTI"),
        (lambda path: rewrite(path, lambda content: content[:-100]), "truncated or damaged"),
        (lambda path: path.write_bytes(b""), "not a readable NIfTI"),
        (lambda path: path.write_text("a letter"), "not a readable NIfTI"),
        (lambda path: rewrite(path, HUGE_SHAPE), "claims 32000 x 32000 x 32000 voxels"),
        (lambda path: rewrite(path, ZERO_SPACING), "voxel size 0 x 1 x 1 mm"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(image: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    spoil(image)
    with pytest.raises(DataError) as caught:
        load_volume(image)
    assert str(image) in str(caught.value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_uncompressed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    nib.save(nib.Nifti1Image(np.zeros((30, 30, 30), np.int16), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"image\.nii: the header claims 30 x 30 x 30 voxels, more than a file of 5000"):
        load_volume(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinite_voxels_are_counted_and_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "image.nii.gz"
    array = np.zeros(SHAPE, np.float32)
    array[0, :2, 0] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    with pytest.raises(DataError, match=r"2 of 189 voxels are NaN or infinite; replace them"):
        load_volume(path)


def test_an_image_whose_header_records_no_orientation_has_none(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([1.5, 1.5, 8.0, 1.0]))
    for code, orientation in ((1, "RAS"), (0, None)):
        image.header["qform_code"] = image.header["sform_code"] = code
        nib.save(type(image)(image.dataobj, None, image.header), tmp_path / "a.nii")
        assert load_volume(tmp_path / "a.nii").orientation == orientation


def test_a_2d_image_needs_no_spacing_along_a_third_axis(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((7, 9), np.int16), None)
    image.header["pixdim"][1:4] = (1.5, 2.0, 0.0)
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + bytes(2 * 7 * 9))
    assert load_volume(tmp_path / "a.nii").spacing_mm[1:] == (2.0, 1.5)


def test_macos_companion_files_are_not_nifti_files() -> None:
    assert [is_nifti(Path(name)) for name in ("a.nii.gz", "A.NII", "._a.nii.gz", "a.nii.gz.tmp")] == [
        *(True, True, False, False)
    ]


def test_a_cine_is_refused_where_a_volume_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "cine.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 5), np.int16), np.eye(4)), path)
    with pytest.raises(DataError, match=r"4-D of shape \(7, 9, 3, 5\); a slice or a 3-D volume is needed"):
        load_volume(path)


def test_a_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*gone\.nii\.gz"):
        load_volume(tmp_path / "gone.nii.gz")


@pytest.mark.parametrize("time_unit", ["unknown", "sec"])
@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e3), ("micron", 1e-3), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_converted_to_mm_from_the_unit_in_the_header(
    tmp_path: Path, unit: str, factor: float, time_unit: str
) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 2), np.int16), np.diag([-1.5, 1.5, 9.0, 1.0]))
    image.header.set_xyzt_units(unit, time_unit)
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = load_volume(tmp_path / "scan.nii.gz")
    assert volume.spacing_mm == pytest.approx((9.0 * factor, 1.5 * factor, 1.5 * factor))
    np.testing.assert_allclose(volume.affine, np.diag([-1.5 * factor, 1.5 * factor, 9.0 * factor, 1.0]))
    save_labels(tmp_path / "out.nii.gz", np.zeros((2, 5, 4), np.uint8), tmp_path / "scan.nii.gz", ("a", "b"))
    labels = nib.load(tmp_path / "out.nii.gz")
    assert labels.header.get_xyzt_units()[0] == unit
    np.testing.assert_array_equal(labels.affine, image.affine)
