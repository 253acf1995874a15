"""Segmentations are read back by highdicom and by pydicom alone, and must lie where the source's slices lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from enhanced_dicom import save_enhanced
from numpy.typing import NDArray
from pydicom.pixels import pixel_array
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage

from deploy.inputs.dicom_seg import save_segmentation
from deploy.inputs.images import DicomSeries, find_images
from deploy.predicting.batch import predict
from deploy.predicting.executor import Threads
from maag.config.data import DataConfig
from maag.data.files.dicom_series import load_series, order_of_slices
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import DataError

CLASSES = ("background", "LV", "right kidney", "gizmo")
SHAPE = (4, 6, 9)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
PATIENT = {"PatientID": "P7", "PatientName": "Doe^Jane", "PatientBirthDate": "19700102", "PatientSex": "F"}


def write_series(
    folder: Path, orientation: tuple[float, ...] = AXIAL, reverse: bool = False, tags: dict[str, Any] | None = None
) -> list[Path]:
    """Four slices 7 mm apart; reversed, their names and numbers run from the highest to the lowest."""
    normal = np.cross(orientation[:3], orientation[3:])
    for place in range(SHAPE[0]):
        number = SHAPE[0] - place if reverse else place + 1
        x, y, z = np.array([-10.0, 5.0, 3.0]) + 7.0 * place * normal
        save_slice(
            folder / f"{number}.dcm",
            np.full(SHAPE[1:], 100 * place, np.uint16),
            spacing_mm=1.5,
            thickness_mm=7.0,
            position=(float(x), float(y), float(z)),
            series="one",
            number=number,
            tags={"ImageOrientationPatient": list(orientation), **PATIENT, **(tags or {})},
        )
    return sorted(folder.iterdir())


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    drawn = np.random.default_rng(0).integers(0, len(CLASSES), SHAPE).astype(np.uint8)
    drawn[2] = 0
    return drawn


@pytest.mark.parametrize(("orientation", "reverse"), [(AXIAL, False), (AXIAL, True), (OBLIQUE, False), (OBLIQUE, True)])
def test_every_voxel_lies_on_its_source(
    tmp_path: Path, labels: NDArray[np.uint8], orientation: tuple[float, ...], reverse: bool
) -> None:
    files = write_series(tmp_path / "in", orientation, reverse)
    out = tmp_path / "deep" / "out.dcm"
    save_segmentation(out, labels, files, CLASSES, "d" * 64)
    ordered = [pydicom.dcmread(files[place]) for place in order_of_slices(files)]
    uids = [source.SOPInstanceUID for source in ordered]

    by_highdicom = highdicom.seg.segread(out).get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(by_highdicom, labels)

    written = pydicom.dcmread(out)
    found = np.zeros(SHAPE, np.uint8)
    planes = np.atleast_3d(pixel_array(out))
    for plane, groups in zip(planes, written.PerFrameFunctionalGroupsSequence, strict=True):
        referred = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = uids.index(referred)
        source = ordered[place]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        found[place][plane == 1] = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    np.testing.assert_array_equal(found, labels)
    shared = written.SharedFunctionalGroupsSequence[0]
    np.testing.assert_allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, orientation)
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, [1.5, 1.5])
    assert len(written.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SHAPE[0]


def test_geometry_is_that_of_the_nifti_labels(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
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


@pytest.mark.parametrize("empty", [True, False])
def test_slices_of_unknown_thickness_are_as_thick_as_they_are_apart(
    tmp_path: Path, labels: NDArray[np.uint8], empty: bool
) -> None:
    files = write_series(tmp_path / "in", tags={"SliceThickness": None})
    for file in files if empty else ():
        dataset = pydicom.dcmread(file)
        dataset.SliceThickness = None  # MR and CT may leave it so
        dataset.save_as(file)
    save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")
    written = highdicom.seg.segread(tmp_path / "out.dcm")
    assert written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 7
    assert written.get_volume(combine_segments=True).spacing == pytest.approx((7, 1.5, 1.5))


@pytest.mark.parametrize("in_header", [None, 3.5, 14.0])
@pytest.mark.parametrize("enhanced", [False, True])
def test_slices_are_as_far_apart_as_their_positions(tmp_path: Path, in_header: float | None, enhanced: bool) -> None:
    """Empty frames are left out, and readers place the others by this distance."""
    if enhanced:
        files = [tmp_path / "a.dcm"]
        write_enhanced(files[0], shared={"SpacingBetweenSlices": in_header})
    else:
        files = write_series(tmp_path / "in", OBLIQUE, tags={"SpacingBetweenSlices": in_header})
    labels = np.zeros(SHAPE, np.uint8)
    labels[[0, 2]] = 1
    save_segmentation(tmp_path / "out.dcm", labels, files, CLASSES, "")
    volume = highdicom.seg.segread(tmp_path / "out.dcm").get_volume(combine_segments=True, allow_missing_positions=True)
    assert volume.spacing == pytest.approx((7, 1.5, 1.5))
    assert sorted(volume.array.any(axis=(1, 2)).tolist()) == [False, True, True]


def test_shared_groups_of_several_items_are_refused(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    source = tmp_path / "a.dcm"
    write_enhanced(source)
    dataset = pydicom.dcmread(source)
    dataset.SharedFunctionalGroupsSequence.append(pydicom.Dataset())
    dataset.save_as(source)
    with pytest.raises(DataError, match=r"a\.dcm: 2 items in SharedFunctionalGroupsSequence.* --dicom-seg"):
        save_segmentation(tmp_path / "out.dcm", labels, [source], CLASSES, "")


def test_who_what_and_by_whom(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
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
def test_codes_mean_what_classes_are_called(tmp_path: Path, name: str, words: set[str]) -> None:
    files = write_series(tmp_path / "in", tags={"SeriesNumber": -1500})
    save_segmentation(tmp_path / "out.dcm", np.ones(SHAPE, np.uint8), files, ("background", name), "")
    written = pydicom.dcmread(tmp_path / "out.dcm")
    (kind,) = written.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    sides = kind.get("SegmentedPropertyTypeModifierCodeSequence", [])
    meant = " ".join(code.CodeMeaning for code in (kind, *sides)).lower()
    assert {word for word in ("left", "right", "ventricle", "myocardium", *words) if word in meant} == words
    assert written.SeriesNumber == 1000


def test_labels_without_a_voxel_are_written_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write_series(tmp_path / "in")
    save_segmentation(tmp_path / "out.dcm", np.zeros(SHAPE, np.uint8), files, CLASSES, "")
    written = highdicom.seg.segread(tmp_path / "out.dcm")
    assert written.number_of_segments == 3
    assert not written.pixel_array.any()
    assert not caplog.records


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"FrameOfReferenceUID": None}, "DICOM without FrameOfReferenceUID, to which"),
        ({"StudyInstanceUID": None, "SOPClassUID": None}, "DICOM without SOPClassUID, StudyInstanceUID"),
        ({"PatientSex": "X"}, "no DICOM segmentation can refer to this series"),
    ],
)
def test_a_series_that_cannot_be_referred_to_is_named(
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


def test_a_series_becomes_a_segmentation_where_asked(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "patient.1" / "scan")
    (plain,) = find_images(tmp_path / "in")
    (image,) = find_images(tmp_path / "in", dicom_seg=True)
    assert (plain.target, image.target) == (Path("patient.1/scan.nii.gz"), Path("patient.1/scan.dcm"))
    assert isinstance(image, DicomSeries)
    drawn = np.ones((1, *SHAPE), np.uint8)
    image.save_labels(tmp_path / "out" / image.target, drawn, ("background", "liver"), "digest")
    written = highdicom.seg.segread(tmp_path / "out" / "patient.1" / "scan.dcm")
    assert written.pixel_array.all()
    assert (
        written.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters.endswith("digest")
    )


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    class Never:
        name = "never"

        def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            raise AssertionError

    files = write_series(tmp_path / "in")
    files[1].unlink()
    outcome = predict(
        [tmp_path / "in"], Threads(Never()), DataConfig(classes=("background", "a")), tmp_path / "out", "m"
    )
    said = f"1.dcm: 14.00 mm from its neighbour {tmp_path / 'in' / '3.dcm'}, but other slices"
    assert said in str(outcome.failed[0].error)


def write_enhanced(
    path: Path, *, per_frame: bool = False, shared: dict[str, Any] | None = None, **tags: Any
) -> list[int]:
    """One file of four frames, and their places from the lowest to the highest."""
    places = [2, 0, 3, 1]
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    common = {"ImageOrientationPatient": list(OBLIQUE), "PixelSpacing": [1.5, 1.5], "SliceThickness": None}
    frames = [
        {"ImagePositionPatient": [float(value) for value in 7.0 * place * normal], **(common if per_frame else {})}
        for place in places
    ]
    shared = {**(dict.fromkeys(common) if per_frame else common), **(shared or {})}
    save_enhanced(path, np.zeros(SHAPE, np.uint16), frames, shared=shared, tags={**PATIENT, **tags})
    return places


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize(
    "kind", [EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, EnhancedCTImageStorage]
)
def test_a_segmentation_of_an_enhanced_file_refers_to_its_frames(
    tmp_path: Path, labels: NDArray[np.uint8], per_frame: bool, kind: str
) -> None:
    source = tmp_path / "in" / "a.dcm"
    places = write_enhanced(source, per_frame=per_frame, SOPClassUID=kind)
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
    np.testing.assert_array_equal(by_frame, labels[places])
    for groups in written.PerFrameFunctionalGroupsSequence:
        (referred,) = groups.DerivationImageSequence[0].SourceImageSequence
        place = places[referred.ReferencedFrameNumber - 1]
        assert referred.ReferencedSOPInstanceUID == uid
        height = np.cross(OBLIQUE[:3], OBLIQUE[3:]) @ groups.PlanePositionSequence[0].ImagePositionPatient
        assert height == pytest.approx(7.0 * place)
    shared = written.SharedFunctionalGroupsSequence[0]
    np.testing.assert_allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, OBLIQUE)
    assert shared.PixelMeasuresSequence[0].SliceThickness == 7
    assert written.get_volume(combine_segments=True, allow_missing_positions=True).spacing == pytest.approx(
        (7, 1.5, 1.5)
    )


def test_a_segmentation_refers_to_one_enhanced_file(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    write_enhanced(tmp_path / "in" / "a.dcm")
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


def test_a_segmentation_of_a_file_of_one_frame_has_its_place(tmp_path: Path) -> None:
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
