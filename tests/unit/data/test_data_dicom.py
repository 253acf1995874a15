"""Every pixel of a series lies where its header puts it, for any orientation and file order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from zlib import crc32

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RTDoseStorage, SegmentationStorage
from scipy.spatial.transform import Rotation

from maag.data.files.dicom_file import UNREADABLE, series_uid
from maag.data.files.dicom_series import load_series, order_of_slices, require_even
from maag.data.files.nifti_writing import save_volume
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import DataError

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
SHAPE = (5, 4)
AXIAL = np.eye(3)
ROW_SPACING_MM, COLUMN_SPACING_MM = 2.5, 0.75
"""PixelSpacing in DICOM's order: between rows, between columns."""


def write_slice(
    path: Path, position: NDArray[np.float64], axes: NDArray[np.float64] = AXIAL, **tags: Any
) -> NDArray[np.uint16]:
    """A slice with its first pixel at `position`; `axes` are unit vectors along a row and along a column."""
    pixels = np.random.default_rng(crc32(path.name.encode())).integers(0, 900, SHAPE).astype(np.uint16)
    tags = {
        "PixelSpacing": [ROW_SPACING_MM, COLUMN_SPACING_MM],
        "ImagePositionPatient": [float(value) for value in position.round(6)],
        "ImageOrientationPatient": [float(value) for value in axes[:2].ravel().round(9)],
        **tags,
    }
    default = (0.0, 0.0, 0.0)
    save_slice(path, pixels, spacing_mm=1, thickness_mm=3, position=default, series="s", number=1, tags=tags)
    return pixels


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(1.5, 9.0), st.integers(1, 5), st.permutations(range(5)), st.floats(-0.4, 0.4)
)
def test_affine_maps_every_pixel_to_the_position_in_its_header(
    seed: int, slice_spacing_mm: float, count: int, file_numbers: list[int], tilt: float
) -> None:
    axes = Rotation.random(random_state=seed).as_matrix()  # along a row, along a column, across
    origin = np.array([-30.0, 12.0, 70.0])
    direction = axes[2] + tilt * axes[1]  # a tilted gantry shears the volume
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{file_numbers[index]}.dcm" for index in range(count)]
        positions = [origin + index * slice_spacing_mm * direction for index in range(count)]
        stored = [
            write_slice(
                path, position, axes, RescaleSlope=2, RescaleIntercept=-7, SpacingBetweenSlices=slice_spacing_mm
            )
            for path, position in zip(paths, positions, strict=True)
        ]
        volume = load_series(sorted(paths))
    np.testing.assert_array_equal(volume.voxels[0], 2.0 * np.stack(stored) - 7)
    assert volume.spacing_mm == pytest.approx((slice_spacing_mm, ROW_SPACING_MM, COLUMN_SPACING_MM), rel=1e-4)
    for index, position in enumerate(positions):
        for row, column in np.ndindex(SHAPE):
            patient = position + column * COLUMN_SPACING_MM * axes[0] + row * ROW_SPACING_MM * axes[1]
            expected = patient * [-1, -1, 1]  # DICOM is LPS, NIfTI is RAS
            np.testing.assert_allclose((volume.affine @ [column, row, index, 1])[:3], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("degrees", "orientation"), [((0, 0, 0), "LPS"), ((0, 0, 180), "RAS"), ((90, 0, 0), "LSA"), ((45, 0, 0), None)]
)
def test_a_series_has_the_orientation_of_its_slices(
    tmp_path: Path, degrees: tuple[float, float, float], orientation: str | None
) -> None:
    directions = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().T
    for index in range(2):
        write_slice(tmp_path / f"{index}.dcm", 3.0 * index * directions[2], directions)
    assert load_series(sorted(tmp_path.iterdir())).orientation == orientation


def save_stack(folder: Path, heights_mm: list[float]) -> list[Path]:
    paths = [folder / f"{number}.dcm" for number in range(len(heights_mm))]
    for path, height in zip(paths, heights_mm, strict=True):
        write_slice(path, np.array([0.0, 0.0, height]))
    return paths


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [ROW_SPACING_MM, 0.8]},
        {"PixelSpacing": [COLUMN_SPACING_MM, ROW_SPACING_MM]},
        {"ImageOrientationPatient": [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]},
        {"ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 0.995, 0.0998]},
    ],
)
def test_slices_with_a_different_grid_are_refused(tmp_path: Path, tags: dict[str, Any]) -> None:
    (first,) = save_stack(tmp_path, [0.0])
    write_slice(tmp_path / "other.dcm", np.array([0.0, 0.0, 3.0]), **tags)
    with pytest.raises(DataError, match=r"other\.dcm: has .* or another orientation; remove it"):
        order_of_slices([first, tmp_path / "other.dcm"])


def test_two_slices_at_one_position_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"1\.dcm: lies at the position of \S+0\.dcm; keep one of them .* of phases or echoes move each"
    ):
        load_series(save_stack(tmp_path, [3.0, 3.0005, 0.0]))


@pytest.mark.parametrize(
    ("heights_mm", "sentence"),
    [([0, 3, 6, 12, 15], r"2\.dcm: 6\.00 mm from its neighbour .*3\.dcm, .* are 3\.00 mm apart"),
     ([0, 3, 6, 7, 10, 13], r"2\.dcm: 1\.00 mm from its neighbour .*3\.dcm"),
     ([0, 3, 6, 9.7, 12.7], None)],
)  # fmt: skip
def test_a_gap_or_an_extra_slice_is_reported(tmp_path: Path, heights_mm: list[float], sentence: str | None) -> None:
    paths = save_stack(tmp_path, heights_mm)
    if sentence is None:
        require_even(paths)
    else:
        with pytest.raises(DataError, match=sentence):
            require_even(paths)


def test_a_gap_does_not_change_the_slice_spacing(tmp_path: Path) -> None:
    assert load_series(save_stack(tmp_path, [0, 3, 6, 12, 15])).spacing_mm[0] == pytest.approx(3)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"SliceThickness": 5.0, "SpacingBetweenSlices": 8.0}, 8.0),
        ({"SliceThickness": 5.0}, 5.0),
        ({"SliceThickness": 5.0, "SpacingBetweenSlices": -8.0}, 8.0),
        ({"SliceThickness": None}, 1.0),
    ],
)
def test_spacing_of_a_single_slice_comes_from_its_header(tmp_path: Path, tags: dict[str, Any], expected: float) -> None:
    write_slice(tmp_path / "a.dcm", np.zeros(3), **tags)
    volume = load_series([tmp_path / "a.dcm"])
    assert volume.spacing_mm[0] == expected
    assert volume.affine[2, 2] == expected


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_rounded_direction_cosines_neither_change_spacing_nor_shear_the_affine(
    tmp_path: Path, seed: int, tilt: float
) -> None:
    """Some scanners write two decimals. Readers built on ITK refuse sheared labels."""
    axes = Rotation.random(random_state=seed).as_matrix()
    slice_spacing_mm, count = 9.0, 20
    step = slice_spacing_mm * (axes[2] + tilt * axes[1])
    paths = [tmp_path / f"{index}.dcm" for index in range(count)]
    for index, path in enumerate(paths):
        write_slice(path, index * step, axes.round(2))
    volume = load_series(paths)
    in_plane_mm = np.linalg.norm(volume.affine[:3, :2], axis=0)
    assert in_plane_mm.tolist() == pytest.approx([COLUMN_SPACING_MM, ROW_SPACING_MM], rel=1e-9)
    directions = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    np.testing.assert_allclose(directions[:, :2].T, axes[:2] * [-1, -1, 1], atol=0.02)
    np.testing.assert_allclose(volume.affine[:3, 2], step * [-1, -1, 1], atol=1e-5)
    if tilt:
        assert np.abs(directions.T @ directions - np.eye(3)).max() > tilt / 2
        assert volume.spacing_mm[0] == pytest.approx(slice_spacing_mm, rel=0.01)
        return
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert volume.spacing_mm[0] == pytest.approx(slice_spacing_mm, rel=1e-5)
    save_volume(tmp_path / "a.nii", np.zeros((count, 512, 512), np.uint8), volume.affine)
    assert nib.load(tmp_path / "a.nii").header["qform_code"] == 1


@pytest.mark.parametrize("degrees", [(0, 0, 0), (10, 20, 30)])
def test_a_slight_tilt_not_explained_by_rounding_is_kept(tmp_path: Path, degrees: tuple[float, ...]) -> None:
    axes = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().T
    step = 4.0 * (axes[2] + 0.005 * axes[1])
    for index in range(2):
        write_slice(tmp_path / f"{index}.dcm", index * step, axes)
    affine = load_series(sorted(tmp_path.iterdir())).affine
    np.testing.assert_allclose(affine[:3, 1], ROW_SPACING_MM * axes[1] * [-1, -1, 1], atol=1e-6)
    np.testing.assert_allclose(affine[:3, 2], step * [-1, -1, 1], atol=1e-5)


@pytest.mark.parametrize("second", [[0.0, 0.5, 0.0], [0.6, 0.8, 0.0]])
def test_direction_cosines_that_are_not_orthonormal_are_refused(tmp_path: Path, second: list[float]) -> None:
    """They would give a wrong slice spacing, and volumes smaller than they are."""
    write_slice(tmp_path / "a.dcm", np.zeros(3), ImageOrientationPatient=[1.0, 0.0, 0.0, *second])
    with pytest.raises(DataError, match=r"a\.dcm: a damaged header \(ImageOrientationPatient .* perpendicular"):
        load_series([tmp_path / "a.dcm"])


def test_a_truncated_deflated_file_is_unreadable(tmp_path: Path) -> None:
    path = save_stack(tmp_path, [0.0])[0]
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    assert series_uid(path) == dataset.SeriesInstanceUID
    path.write_bytes(path.read_bytes()[:-100])
    assert series_uid(path) == UNREADABLE
    with pytest.raises(DataError, match="not a readable DICOM file"):
        order_of_slices([path])


@pytest.mark.parametrize("kind", [SegmentationStorage, LABEL_MAP, RTDoseStorage])
def test_series_uid_ignores_segmentations_and_dose_files(tmp_path: Path, kind: str) -> None:
    path = save_stack(tmp_path, [0.0])[0]
    dataset = pydicom.dcmread(path)
    assert series_uid(path) == dataset.SeriesInstanceUID
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.save_as(path, enforce_file_format=True)
    assert series_uid(path) is None


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("words", [True, False])
def test_a_modality_lut_is_applied(tmp_path: Path, deflated: bool, words: bool) -> None:
    table = np.arange(400, dtype="<u2") ** 2 % 5000
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(table), 100, 16]
    item.add_new("LUTData", "OW" if words else "US", table.tobytes() if words else table.tolist())
    stored = write_slice(tmp_path / "a.dcm", np.zeros(3), ModalityLUTSequence=[item])
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian if deflated else ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    read = load_series([tmp_path / "a.dcm"]).voxels[0, 0]
    np.testing.assert_array_equal(read, table[np.clip(stored.astype(int) - 100, 0, len(table) - 1)])


def test_a_modality_lut_with_a_nonstandard_bit_depth_is_refused(tmp_path: Path) -> None:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTExplanation = [2, 0, 12], "HU"
    item.add_new("LUTData", "US", [5, 6])
    write_slice(tmp_path / "a.dcm", np.zeros(3), ModalityLUTSequence=[item])
    with pytest.raises(DataError, match=r"a\.dcm: its pixels cannot be decoded \(.*uint12"):
        load_series([tmp_path / "a.dcm"])
