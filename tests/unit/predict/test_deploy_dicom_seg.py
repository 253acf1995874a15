"""What a segmentation records of its patient, classes and model, and which series are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_seg_sources import CLASSES, PATIENT, SHAPE, write_series
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from deploy.inputs.dicom_seg import save_segmentation
from deploy.inputs.images import DicomSeries, find_images
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from maag.config.data import DataConfig
from maag.errors import DataError


def test_a_segmentation_records_its_patient_study_classes_and_model(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    files = write_series(tmp_path / "in", tags={"StudyID": "S1", "AccessionNumber": "A1", "SeriesNumber": 4})
    save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "d" * 64 + "+flips")
    written, source = pydicom.dcmread(tmp_path / "out.dcm"), pydicom.dcmread(files[0])
    for keyword in (*PATIENT, "StudyInstanceUID", "FrameOfReferenceUID", "StudyID", "AccessionNumber"):
        assert written[keyword].value == source[keyword].value
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    assert (written.Modality, written.SegmentationType, written.SegmentsOverlap) == ("SEG", "BINARY", "NO")
    first, second, third = written.SegmentSequence
    assert [segment.SegmentLabel for segment in (first, second, third)] == list(CLASSES[1:])
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == codes.SCT.LeftVentricle.value
    kidney = second.SegmentedPropertyTypeCodeSequence[0]
    assert kidney.CodeValue == codes.SCT.Kidney.value
    assert kidney.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == codes.SCT.Right.value
    assert third.SegmentedPropertyTypeCodeSequence[0].CodeValue == codes.SCT.AnatomicalStructure.value
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "maag"
    assert algorithm.AlgorithmParameters == "model=" + "d" * 64 + "+flips"
    assert len({tuple(segment.RecommendedDisplayCIELabValue) for segment in (first, second, third)}) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LV", {"left", "ventricle"}),
        ("left ventricle", {"left", "ventricle"}),
        ("rv", {"right", "ventricle"}),
        ("Right Ventricle", {"right", "ventricle"}),
        ("MYO", {"left", "ventricle", "myocardium"}),
        ("liver", {"liver"}),
        ("spleen", {"spleen"}),
        ("right kidney", {"right", "kidney"}),
        ("left kidney", {"left", "kidney"}),
        ("kidney", {"kidney"}),
        ("prostate", {"prostate"}),
        ("pancreas", {"pancreas"}),
    ],
)
def test_segment_codes_match_the_class_names(tmp_path: Path, name: str, words: set[str]) -> None:
    files = write_series(tmp_path / "in", tags={"SeriesNumber": -1500})
    save_segmentation(tmp_path / "out.dcm", np.ones(SHAPE, np.uint8), files, ("background", name), "")
    written = pydicom.dcmread(tmp_path / "out.dcm")
    (property_type,) = written.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    modifiers = property_type.get("SegmentedPropertyTypeModifierCodeSequence", [])
    meanings = " ".join(code.CodeMeaning for code in (property_type, *modifiers)).lower()
    assert {word for word in ("left", "right", "ventricle", "myocardium", *words) if word in meanings} == words
    assert written.SeriesNumber == 1000


def test_empty_labels_are_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write_series(tmp_path / "in")
    save_segmentation(tmp_path / "out.dcm", np.zeros(SHAPE, np.uint8), files, CLASSES, "")
    written = highdicom.seg.segread(tmp_path / "out.dcm")
    assert written.number_of_segments == 3
    assert not written.pixel_array.any()
    assert not caplog.records


def test_labels_of_a_series_are_saved_as_a_segmentation_on_request(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "patient.1" / "scan")
    (plain,) = find_images(tmp_path / "in")
    (image,) = find_images(tmp_path / "in", dicom_seg=True)
    assert (plain.target, image.target) == (Path("patient.1/scan.nii.gz"), Path("patient.1/scan.dcm"))
    assert isinstance(image, DicomSeries)
    labels = np.ones((1, *SHAPE), np.uint8)
    image.save_labels(tmp_path / "out" / image.target, labels, ("background", "liver"), "digest")
    written = highdicom.seg.segread(tmp_path / "out" / "patient.1" / "scan.dcm")
    assert written.pixel_array.all()
    assert (
        written.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters.endswith("digest")
    )


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"FrameOfReferenceUID": None}, "DICOM without FrameOfReferenceUID, to which"),
        ({"StudyInstanceUID": None, "SOPClassUID": None}, "DICOM without SOPClassUID, StudyInstanceUID"),
        ({"PatientSex": "X"}, "no DICOM segmentation can refer to this series"),
    ],
)
def test_a_series_that_no_segmentation_can_reference_is_refused(
    tmp_path: Path, labels: NDArray[np.uint8], tags: dict[str, Any], sentence: str
) -> None:
    files = write_series(tmp_path / "in", tags=tags)
    with pytest.raises(DataError, match=sentence) as caught:
        save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")
    assert "NIfTI" in str(caught.value)
    assert not (tmp_path / "out.dcm").exists()


def test_two_frames_of_reference_are_refused(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    files = write_series(tmp_path / "in")
    moved = pydicom.dcmread(files[2])
    moved.FrameOfReferenceUID = "1.2.3"
    moved.save_as(files[2])
    with pytest.raises(DataError, match=r"3\.dcm: its FrameOfReferenceUID is not that of"):
        save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")


def test_labels_of_another_shape_are_refused(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    files = write_series(tmp_path / "in")
    with pytest.raises(DataError, match="they must agree"):
        save_segmentation(tmp_path / "out.dcm", labels[1:], files, CLASSES, "")


def test_a_missing_slice_is_reported(tmp_path: Path) -> None:
    class NeverCalled:
        name = "never"

        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            raise AssertionError

    files = write_series(tmp_path / "in")
    files[1].unlink()
    outcome = predict(
        [tmp_path / "in"], Threads(NeverCalled()), DataConfig(classes=("background", "a")), tmp_path / "out", "m"
    )
    message = f"1.dcm: 14.00 mm from its neighbour {tmp_path / 'in' / '3.dcm'}, but other slices"
    assert message in str(outcome.failed[0].error)
