"""Segmentations of enhanced files reference the frames of their source."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_seg_sources import CLASSES, OBLIQUE, PATIENT, SHAPE, write_enhanced_file
from enhanced_dicom import save_enhanced
from numpy.typing import NDArray
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage

from deploy.inputs.dicom_seg import save_segmentation
from maag.errors import DataError


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize(
    "kind", [EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, EnhancedCTImageStorage]
)
def test_a_segmentation_references_the_frames_of_its_enhanced_source(
    tmp_path: Path, labels: NDArray[np.uint8], per_frame: bool, kind: str
) -> None:
    source = tmp_path / "in" / "a.dcm"
    indices = write_enhanced_file(source, per_frame=per_frame, SOPClassUID=kind)
    save_segmentation(tmp_path / "out.dcm", labels, [source], CLASSES, "")
    written = highdicom.seg.segread(tmp_path / "out.dcm")
    uid = pydicom.dcmread(source).SOPInstanceUID
    by_frame = written.get_pixels_by_source_frame(
        uid,
        range(1, 5),
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(by_frame, labels[indices])
    for groups in written.PerFrameFunctionalGroupsSequence:
        (reference,) = groups.DerivationImageSequence[0].SourceImageSequence
        index = indices[reference.ReferencedFrameNumber - 1]
        assert reference.ReferencedSOPInstanceUID == uid
        height = np.cross(OBLIQUE[:3], OBLIQUE[3:]) @ groups.PlanePositionSequence[0].ImagePositionPatient
        assert height == pytest.approx(7.0 * index)
    shared = written.SharedFunctionalGroupsSequence[0]
    np.testing.assert_allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, OBLIQUE)
    assert shared.PixelMeasuresSequence[0].SliceThickness == 7
    assert written.get_volume(combine_segments=True, allow_missing_positions=True).spacing == pytest.approx(
        (7, 1.5, 1.5)
    )


def test_a_segmentation_of_a_single_frame_has_its_position(tmp_path: Path) -> None:
    plane = np.ones((1, *SHAPE[1:]), np.uint8)
    source = save_enhanced(
        tmp_path / "a.dcm",
        plane.astype(np.uint16),
        [{}],
        shared={"ImagePositionPatient": [1.0, 2.0, 3.0]},
        tags=PATIENT,
    )
    save_segmentation(tmp_path / "out.dcm", plane, [source], CLASSES, "")
    (groups,) = pydicom.dcmread(tmp_path / "out.dcm").PerFrameFunctionalGroupsSequence
    assert groups.PlanePositionSequence[0].ImagePositionPatient == [1, 2, 3]


def test_a_second_enhanced_file_of_a_series_is_refused(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    write_enhanced_file(tmp_path / "in" / "a.dcm")
    moved = pydicom.dcmread(tmp_path / "in" / "a.dcm")
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    for groups in moved.PerFrameFunctionalGroupsSequence:
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float) + 28 * normal
        groups.PlanePositionSequence[0].ImagePositionPatient = position.round(6).tolist()
    moved.save_as(tmp_path / "in" / "b.dcm")
    with pytest.raises(DataError, match=r"b\.dcm: a second enhanced file of its series, .* leave out --dicom-seg"):
        save_segmentation(
            tmp_path / "out.dcm", np.concatenate([labels, labels]), sorted((tmp_path / "in").iterdir()), CLASSES, ""
        )


def test_several_items_of_shared_groups_are_refused(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    source = tmp_path / "a.dcm"
    write_enhanced_file(source)
    dataset = pydicom.dcmread(source)
    dataset.SharedFunctionalGroupsSequence.append(pydicom.Dataset())
    dataset.save_as(source)
    with pytest.raises(DataError, match=r"a\.dcm: 2 items in SharedFunctionalGroupsSequence.* --dicom-seg"):
        save_segmentation(tmp_path / "out.dcm", labels, [source], CLASSES, "")
