"""Segmentations, read back by highdicom and by pydicom alone, lie where the slices of their source lie."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_seg_sources import CLASSES, OBLIQUE, PATIENT, SHAPE, write_enhanced_file, write_series
from enhanced_dicom import AXIAL, save_enhanced
from numpy.typing import NDArray
from pydicom.pixels import pixel_array
from scipy.spatial.transform import Rotation

from deploy.inputs.dicom_seg import save_segmentation
from maag.data.files.dicom_series import load_series, order_of_slices
from maag.data.files.dicom_slices import read_slices


@pytest.mark.parametrize(("orientation", "reverse"), [(AXIAL, False), (AXIAL, True), (OBLIQUE, False), (OBLIQUE, True)])
def test_every_voxel_lies_on_its_source_slice(
    tmp_path: Path, labels: NDArray[np.uint8], orientation: tuple[float, ...], reverse: bool
) -> None:
    files = write_series(tmp_path / "in", orientation, reverse)
    out = tmp_path / "deep" / "out.dcm"
    save_segmentation(out, labels, files, CLASSES, "d" * 64)
    ordered = [pydicom.dcmread(files[index]) for index in order_of_slices(files)]
    uids = [source.SOPInstanceUID for source in ordered]

    by_highdicom = highdicom.seg.segread(out).get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(by_highdicom, labels)

    written = pydicom.dcmread(out)
    by_pydicom = np.zeros(SHAPE, np.uint8)
    planes = np.atleast_3d(pixel_array(out))
    for plane, groups in zip(planes, written.PerFrameFunctionalGroupsSequence, strict=True):
        source_uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        index = uids.index(source_uid)
        source = ordered[index]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        by_pydicom[index][plane == 1] = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    np.testing.assert_array_equal(by_pydicom, labels)
    shared = written.SharedFunctionalGroupsSequence[0]
    np.testing.assert_allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, orientation)
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, [1.5, 1.5])
    assert len(written.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SHAPE[0]


def test_segmentation_geometry_matches_the_nifti_labels(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    files = write_series(tmp_path / "in", OBLIQUE, reverse=True)
    save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")
    volume = highdicom.seg.segread(tmp_path / "out.dcm").get_volume(combine_segments=True, allow_missing_positions=True)
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    to_nifti = np.linalg.inv(load_series(files).affine) @ lps_to_ras @ volume.affine
    np.testing.assert_allclose(np.abs(to_nifti[:3, :3]), [[0, 0, 1], [0, 1, 0], [1, 0, 0]], atol=1e-4)
    corners = np.argwhere(volume.array)
    x, y, z = np.rint(to_nifti @ np.c_[corners, np.ones(len(corners))].T).astype(int)[:3]
    np.testing.assert_array_equal(labels[z, y, x], volume.array[tuple(corners.T)])
    assert len(corners) == np.count_nonzero(labels)


def write_rounded(folder: Path, decimals: int, *, enhanced: bool, seed: int) -> tuple[list[Path], list[float]]:
    """Write a series whose positions are precise and whose direction cosines are rounded; return these as well."""
    axes = Rotation.random(random_state=seed).as_matrix()
    rounded = [float(value) for value in axes[:2].ravel().round(decimals)]
    tags = {"ImageOrientationPatient": rounded}
    if not enhanced:
        return write_series(folder, tuple(axes[:2].ravel().tolist()), tags=tags), rounded
    frames = [{"ImagePositionPatient": (7.0 * index * axes[2]).round(6).tolist()} for index in range(SHAPE[0])]
    shared = {**tags, "PixelSpacing": [1.5, 1.5]}
    return [save_enhanced(folder / "a.dcm", np.zeros(SHAPE, np.uint16), frames, shared=shared, tags=PATIENT)], rounded


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_three_decimals_of_direction_cosines_become_perpendicular(
    tmp_path: Path, labels: NDArray[np.uint8], seed: int, enhanced: bool
) -> None:
    files, _ = write_rounded(tmp_path / "in", 3, enhanced=enhanced, seed=seed)
    save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")
    volume = highdicom.seg.segread(tmp_path / "out.dcm").get_volume(combine_segments=True, allow_missing_positions=True)
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    to_nifti = np.linalg.inv(load_series(read_slices(files)).affine) @ lps_to_ras @ volume.affine
    np.testing.assert_allclose(np.abs(to_nifti[:3, :3]), [[0, 0, 1], [0, 1, 0], [1, 0, 0]], atol=1e-4)


@pytest.mark.parametrize("enhanced", [False, True])
def test_two_decimals_of_direction_cosines_are_kept_for_viewers(
    tmp_path: Path, labels: NDArray[np.uint8], enhanced: bool
) -> None:
    files, rounded = write_rounded(tmp_path / "in", 2, enhanced=enhanced, seed=1)
    save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert written.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient == rounded
    by_highdicom = highdicom.seg.segread(tmp_path / "out.dcm")
    options = dict.fromkeys(("combine_segments", "ignore_spatial_locations", "assert_missing_frames_are_empty"), True)
    if enhanced:
        uid = pydicom.dcmread(files[0]).SOPInstanceUID
        found = by_highdicom.get_pixels_by_source_frame(uid, range(1, SHAPE[0] + 1), **options)
    else:
        uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
        found = by_highdicom.get_pixels_by_source_instance(uids, **options)
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("empty", [True, False])
def test_slices_of_unknown_thickness_are_as_thick_as_the_slice_spacing(
    tmp_path: Path, labels: NDArray[np.uint8], empty: bool
) -> None:
    files = write_series(tmp_path / "in", tags={"SliceThickness": None})
    for file in files if empty else ():
        dataset = pydicom.dcmread(file)
        dataset.SliceThickness = None  # MR and CT may leave it empty
        dataset.save_as(file)
    save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")
    written = highdicom.seg.segread(tmp_path / "out.dcm")
    assert written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 7
    assert written.get_volume(combine_segments=True).spacing == pytest.approx((7, 1.5, 1.5))


@pytest.mark.parametrize("header_spacing_mm", [None, 3.5, 14.0])
@pytest.mark.parametrize("enhanced", [False, True])
def test_slice_spacing_comes_from_the_slice_positions(
    tmp_path: Path, header_spacing_mm: float | None, enhanced: bool
) -> None:
    """Empty frames are left out, and readers position the others by this spacing."""
    if enhanced:
        files = [tmp_path / "a.dcm"]
        write_enhanced_file(files[0], shared={"SpacingBetweenSlices": header_spacing_mm})
    else:
        files = write_series(tmp_path / "in", OBLIQUE, tags={"SpacingBetweenSlices": header_spacing_mm})
    labels = np.zeros(SHAPE, np.uint8)
    labels[[0, 2]] = 1
    save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")
    volume = highdicom.seg.segread(tmp_path / "out.dcm").get_volume(combine_segments=True, allow_missing_positions=True)
    assert volume.spacing == pytest.approx((7, 1.5, 1.5))
    assert sorted(volume.array.any(axis=(1, 2)).tolist()) == [False, True, True]
