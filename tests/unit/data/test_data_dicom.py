"""Every pixel of a series lies in the volume where its own header puts it, whatever way slices are cut and named."""

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
ROWS_MM, COLUMNS_MM = 2.5, 0.75
"""Between rows and between columns, as DICOM orders them."""


def write_slice(
    path: Path, position: NDArray[np.float64], axes: NDArray[np.float64] = AXIAL, **tags: Any
) -> NDArray[np.uint16]:
    """A slice whose first pixel lies at `position`; `axes` are unit vectors along a row and along a column."""
    pixels = np.random.default_rng(crc32(path.name.encode())).integers(0, 900, SHAPE).astype(np.uint16)
    tags = {
        "PixelSpacing": [ROWS_MM, COLUMNS_MM],
        "ImagePositionPatient": [float(value) for value in position.round(6)],
        "ImageOrientationPatient": [float(value) for value in axes[:2].ravel().round(9)],
        **tags,
    }
    place = (0.0, 0.0, 0.0)
    save_slice(path, pixels, spacing_mm=1, thickness_mm=3, position=place, series="s", number=1, tags=tags)
    return pixels


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(1.5, 9.0), st.integers(1, 5), st.permutations(range(5)), st.floats(-0.4, 0.4)
)
def test_every_pixel_lies_where_its_header_says(
    seed: int, between_mm: float, count: int, names: list[int], tilt: float
) -> None:
    axes = Rotation.random(random_state=seed).as_matrix()  # along a row, along a column, across
    begin = np.array([-30.0, 12.0, 70.0])
    way = axes[2] + tilt * axes[1]  # a tilted gantry shifts the slices against each other
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{names[place]}.dcm" for place in range(count)]
        positions = [begin + place * between_mm * way for place in range(count)]
        stored = [
            write_slice(path, position, axes, RescaleSlope=2, RescaleIntercept=-7, SpacingBetweenSlices=between_mm)
            for path, position in zip(paths, positions, strict=True)
        ]
        volume = load_series(sorted(paths))
    np.testing.assert_array_equal(volume.voxels[0], 2.0 * np.stack(stored) - 7)
    assert volume.spacing_mm == pytest.approx((between_mm, ROWS_MM, COLUMNS_MM), rel=1e-4)
    for place, position in enumerate(positions):
        for row, column in np.ndindex(SHAPE):
            patient = position + column * COLUMNS_MM * axes[0] + row * ROWS_MM * axes[1]
            expected = patient * [-1, -1, 1]  # DICOM's x and y run to the left and to the back, NIfTI's against them
            np.testing.assert_allclose((volume.affine @ [column, row, place, 1])[:3], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("degrees", "orientation"), [((0, 0, 0), "LPS"), ((0, 0, 180), "RAS"), ((90, 0, 0), "LSA"), ((45, 0, 0), None)]
)
def test_a_series_has_the_orientation_of_its_slices(
    tmp_path: Path, degrees: tuple[float, float, float], orientation: str | None
) -> None:
    directions = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().T
    for place in range(2):
        write_slice(tmp_path / f"{place}.dcm", 3.0 * place * directions[2], directions)
    assert load_series(sorted(tmp_path.iterdir())).orientation == orientation


def stack(folder: Path, heights_mm: list[float]) -> list[Path]:
    paths = [folder / f"{number}.dcm" for number in range(len(heights_mm))]
    for path, height in zip(paths, heights_mm, strict=True):
        write_slice(path, np.array([0.0, 0.0, height]))
    return paths


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [ROWS_MM, 0.8]},
        {"PixelSpacing": [COLUMNS_MM, ROWS_MM]},
        {"ImageOrientationPatient": [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]},
        {"ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 0.995, 0.0998]},
    ],
)
def test_slices_of_another_grid_are_no_volume(tmp_path: Path, tags: dict[str, Any]) -> None:
    (first,) = stack(tmp_path, [0.0])
    write_slice(tmp_path / "other.dcm", np.array([0.0, 0.0, 3.0]), **tags)
    with pytest.raises(DataError, match=r"other\.dcm: has .* or another orientation; remove it"):
        order_of_slices([first, tmp_path / "other.dcm"])


def test_two_slices_at_one_place_are_no_volume(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"1\.dcm: lies at the position of \S+0\.dcm; keep one of them .* of phases or echoes move each"
    ):
        load_series(stack(tmp_path, [3.0, 3.0005, 0.0]))


@pytest.mark.parametrize(
    ("heights_mm", "named"),
    [([0, 3, 6, 12, 15], r"2\.dcm: 6\.00 mm from its neighbour .*3\.dcm, .* are 3\.00 mm apart"),
     ([0, 3, 6, 7, 10, 13], r"2\.dcm: 1\.00 mm from its neighbour .*3\.dcm"),
     ([0, 3, 6, 9.7, 12.7], None)],
)  # fmt: skip
def test_a_gap_or_a_slice_too_many_is_named(tmp_path: Path, heights_mm: list[float], named: str | None) -> None:
    paths = stack(tmp_path, heights_mm)
    if named is None:
        require_even(paths)
    else:
        with pytest.raises(DataError, match=named):
            require_even(paths)


def test_a_gap_changes_no_distance_of_the_others(tmp_path: Path) -> None:
    assert load_series(stack(tmp_path, [0, 3, 6, 12, 15])).spacing_mm[0] == pytest.approx(3)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"SliceThickness": 5.0, "SpacingBetweenSlices": 8.0}, 8.0),
        ({"SliceThickness": 5.0}, 5.0),
        ({"SliceThickness": 5.0, "SpacingBetweenSlices": -8.0}, 8.0),
        ({"SliceThickness": None}, 1.0),
    ],
)
def test_a_slice_alone_is_as_thick_as_its_distance_to_the_next(
    tmp_path: Path, tags: dict[str, Any], expected: float
) -> None:
    write_slice(tmp_path / "a.dcm", np.zeros(3), **tags)
    volume = load_series([tmp_path / "a.dcm"])
    assert volume.spacing_mm[0] == expected
    assert volume.affine[2, 2] == expected


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_rounded_directions_change_no_distance_and_shear_nothing(tmp_path: Path, seed: int, tilt: float) -> None:
    """Some scanners write two decimals. Readers built on ITK refuse sheared labels."""
    axes = Rotation.random(random_state=seed).as_matrix()
    apart_mm, count = 9.0, 20
    step = apart_mm * (axes[2] + tilt * axes[1])
    paths = [tmp_path / f"{place}.dcm" for place in range(count)]
    for place, path in enumerate(paths):
        write_slice(path, place * step, axes.round(2))
    volume = load_series(paths)
    in_plane_mm = np.linalg.norm(volume.affine[:3, :2], axis=0)
    assert in_plane_mm.tolist() == pytest.approx([COLUMNS_MM, ROWS_MM], rel=1e-9)
    directions = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    np.testing.assert_allclose(directions[:, :2].T, axes[:2] * [-1, -1, 1], atol=0.02)
    np.testing.assert_allclose(volume.affine[:3, 2], step * [-1, -1, 1], atol=1e-5)
    if tilt:
        assert np.abs(directions.T @ directions - np.eye(3)).max() > tilt / 2
        assert volume.spacing_mm[0] == pytest.approx(apart_mm, rel=0.01)
        return
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert volume.spacing_mm[0] == pytest.approx(apart_mm, rel=1e-5)
    save_volume(tmp_path / "a.nii", np.zeros((count, 512, 512), np.uint8), volume.affine)
    assert nib.load(tmp_path / "a.nii").header["qform_code"] == 1


@pytest.mark.parametrize("degrees", [(0, 0, 0), (10, 20, 30)])
def test_a_slight_tilt_that_rounding_does_not_explain_is_kept(tmp_path: Path, degrees: tuple[float, ...]) -> None:
    axes = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().T
    step = 4.0 * (axes[2] + 0.005 * axes[1])
    for place in range(2):
        write_slice(tmp_path / f"{place}.dcm", place * step, axes)
    affine = load_series(sorted(tmp_path.iterdir())).affine
    np.testing.assert_allclose(affine[:3, 1], ROWS_MM * axes[1] * [-1, -1, 1], atol=1e-6)
    np.testing.assert_allclose(affine[:3, 2], step * [-1, -1, 1], atol=1e-5)


@pytest.mark.parametrize("second", [[0.0, 0.5, 0.0], [0.6, 0.8, 0.0]])
def test_directions_that_are_not_perpendicular_or_of_length_1_are_refused(tmp_path: Path, second: list[float]) -> None:
    """By them the distance of slices would be another, and voxels and volumes smaller than they are."""
    write_slice(tmp_path / "a.dcm", np.zeros(3), ImageOrientationPatient=[1.0, 0.0, 0.0, *second])
    with pytest.raises(DataError, match=r"a\.dcm: a damaged header \(ImageOrientationPatient .* perpendicular"):
        load_series([tmp_path / "a.dcm"])


def test_a_file_that_is_cut_where_it_is_deflated_is_unreadable(tmp_path: Path) -> None:
    path = stack(tmp_path, [0.0])[0]
    whole = pydicom.dcmread(path)
    whole.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole.save_as(path, enforce_file_format=True)
    assert series_uid(path) == whole.SeriesInstanceUID
    path.write_bytes(path.read_bytes()[:-100])
    assert series_uid(path) == UNREADABLE
    with pytest.raises(DataError, match="not a readable DICOM file"):
        order_of_slices([path])


@pytest.mark.parametrize("kind", [SegmentationStorage, LABEL_MAP, RTDoseStorage])
def test_what_belongs_to_images_is_none(tmp_path: Path, kind: str) -> None:
    path = stack(tmp_path, [0.0])[0]
    whole = pydicom.dcmread(path)
    assert series_uid(path) == whole.SeriesInstanceUID
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = kind
    whole.save_as(path, enforce_file_format=True)
    assert series_uid(path) is None


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("words", [True, False])
def test_a_modality_lut_is_applied_where_there_is_one(tmp_path: Path, deflated: bool, words: bool) -> None:
    table = np.arange(400, dtype="<u2") ** 2 % 5000
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(table), 100, 16]
    item.add_new("LUTData", "OW" if words else "US", table.tobytes() if words else table.tolist())
    stored = write_slice(tmp_path / "a.dcm", np.zeros(3), ModalityLUTSequence=[item])
    whole = pydicom.dcmread(tmp_path / "a.dcm")
    whole.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian if deflated else ExplicitVRLittleEndian
    whole.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    read = load_series([tmp_path / "a.dcm"]).voxels[0, 0]
    np.testing.assert_array_equal(read, table[np.clip(stored.astype(int) - 100, 0, len(table) - 1)])


def test_a_modality_lut_of_bits_that_the_standard_does_not_know_is_refused(tmp_path: Path) -> None:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTExplanation = [2, 0, 12], "HU"
    item.add_new("LUTData", "US", [5, 6])
    write_slice(tmp_path / "a.dcm", np.zeros(3), ModalityLUTSequence=[item])
    with pytest.raises(DataError, match=r"a\.dcm: its pixels cannot be decoded \(.*uint12"):
        load_series([tmp_path / "a.dcm"])
