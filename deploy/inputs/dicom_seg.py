"""Labels of a DICOM series as a DICOM segmentation object, which viewers overlay on its images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from pydicom.valuerep import DSfloat

from maag import __version__
from maag.data.files.dicom_file import read_header
from maag.data.files.dicom_series import grid_of_series, in_order
from maag.data.files.dicom_slices import DicomSlice, read_slices
from maag.errors import DataError, first_line
from maag.storage import replacing

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# The standard requires these elements, empty if unknown, but anonymised series often lack them.
_MAY_BE_UNKNOWN = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#e377c2", "#bcbd22")
_SERIES_NUMBER_OFFSET = 1000
_DIGITS_OF_MM = 4
_CORRECTED = (1e-5, 1e-3)
"""Errors of direction cosines that are corrected; the largest moves a pixel 256 away by a quarter along an axis."""
_LONGEST_LABEL = _LONGEST_SERIAL = 64  # of the value representation LO


class _Structure(NamedTuple):
    """SNOMED CT codes of what a segment shows."""

    type: Code
    side: Code | None = None


_ANATOMY = codes.SCT.AnatomicalStructure
_STRUCTURES = {
    "lv": _Structure(codes.SCT.LeftVentricle),
    "left ventricle": _Structure(codes.SCT.LeftVentricle),
    "rv": _Structure(codes.SCT.RightVentricle),
    "right ventricle": _Structure(codes.SCT.RightVentricle),
    # The data sets that have this class label the wall of the left ventricle alone.
    "myo": _Structure(codes.SCT.LeftVentricleMyocardium),
    "liver": _Structure(codes.SCT.Liver),
    "spleen": _Structure(codes.SCT.Spleen),
    "kidney": _Structure(codes.SCT.Kidney),
    "right kidney": _Structure(codes.SCT.Kidney, codes.SCT.Right),
    "left kidney": _Structure(codes.SCT.Kidney, codes.SCT.Left),
    "prostate": _Structure(codes.SCT.Prostate),
    "pancreas": _Structure(codes.SCT.Pancreas),
}


def save_segmentation(
    path: Path, labels: NDArray[np.uint8], series_files: Sequence[Path], classes: Sequence[str], model_digest: str
) -> None:
    """Write labels as a binary DICOM segmentation, a segment for each class but the background, atomically.

    It references the patient, study and frame of reference of the series, and in each frame the source slice, or the
    source frame of an enhanced file. Frames without labels are omitted, as is usual, unless all are empty.

    Args:
        path: the file to write.
        labels: (Z, Y, X), slices from the lowest to the highest, as in
            `maag.data.files.dicom_series.load_series`.
        series_files: the files of the series, in any order.
        classes: names, background first; those without a code of their own are "anatomical structure".
        model_digest: identifies the model, perhaps with options; empty if unknown.

    Raises:
        DataError: the labels differ from the series in shape, its headers lack what a segmentation must reference, or
            it consists of several enhanced files.
        StorageError: a file cannot be read, or `path` cannot be written.
    """
    slices = in_order(read_slices(series_files))
    shape = (len(slices), *slices[0].geometry.shape)
    if labels.shape != shape:
        raise DataError(
            f"{path}: labels are {labels.shape}, the series {slices[0].path.parent} is {shape}; they must agree"
        )
    frames = [one.frame for one in slices if one.frame is not None]
    files = list(dict.fromkeys(one.path for one in slices))
    if frames and len(files) > 1:
        raise DataError(
            f"{files[1]}: a second enhanced file of its series, but a DICOM segmentation refers to one; leave out "
            "--dicom-seg, or give each file in its own folder"
        )
    sources = [_source(file) for file in files]
    _require_one_frame(sources, files)
    (between_mm, _, _), affine = grid_of_series(slices)
    spacing_mm, orientation = round(between_mm, _DIGITS_OF_MM), _orientation(slices[0], affine)
    if frames:
        # highdicom expects one plane of labels for each frame, in the order of the file.
        labels = labels[np.argsort(frames)]
        _share_geometry(sources[0], files[0], slices[0], orientation, spacing_mm)
    else:
        _set_geometry(sources, orientation, spacing_mm)
    segmentation = _build(labels, sources, files, classes, model_digest)
    with replacing(path) as temporary:
        segmentation.save_as(temporary, enforce_file_format=True)


def _build(
    labels: NDArray[np.uint8],
    sources: Sequence[Dataset],
    files: Sequence[Path],
    classes: Sequence[str],
    model_digest: str,
) -> Segmentation:
    try:
        with warnings.catch_warnings():
            # Warnings concern patients' names, which are copied from the source.
            warnings.simplefilter("ignore")
            return Segmentation(
                source_images=sources,
                pixel_array=labels,
                segmentation_type="BINARY",
                omit_empty_frames=bool(labels.any()),
                segment_descriptions=_descriptions(classes, model_digest),
                series_instance_uid=generate_uid(),
                series_number=_SERIES_NUMBER_OFFSET + max(0, int(sources[0].get("SeriesNumber") or 0)),
                sop_instance_uid=generate_uid(),
                instance_number=1,
                manufacturer="maag",
                manufacturer_model_name="maag",
                software_versions=__version__,
                device_serial_number=model_digest[:_LONGEST_SERIAL] or "unknown",
                content_label="SEGMENTATION",
                content_description=f"Segmentation by maag {__version__}",
                series_description="Segmentation by maag",
            )
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # highdicom raises these for unusual headers.
        reason = first_line(error)
        raise DataError(
            f"{files[0].parent}: no DICOM segmentation can refer to this series ({reason}); take NIfTI labels instead"
        ) from error


def _source(file: Path) -> Dataset:
    header = read_header(file)
    missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
    if missing:
        raise DataError(
            f"{file}: DICOM without {', '.join(missing)}, to which a segmentation must refer; export the series again "
            "with them, or take NIfTI labels instead"
        )
    for keyword in _MAY_BE_UNKNOWN:
        if keyword not in header:
            setattr(header, keyword, None)
    return header


def _require_one_frame(sources: Sequence[Dataset], files: Sequence[Path]) -> None:
    first = sources[0]
    for file, source in zip(files, sources, strict=True):
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
            if source[keyword].value != first[keyword].value:
                raise DataError(
                    f"{file}: its {keyword} is not that of {files[0]}; no segmentation can lie on both: move it to a "
                    "folder of its own"
                )


def _orientation(first: DicomSlice, affine: NDArray[np.float64]) -> list[DSfloat]:
    """Direction cosines of the series, or those of its grid if they have an error in _CORRECTED.

    highdicom refuses to read volumes of three decimals that are not perpendicular. Two decimals would need so large a
    correction that viewers may no longer take labels and images for parallel.
    """
    stored = np.array([float(value) for value in first.header.ImageOrientationPatient])
    directions = (affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)).T * [-1, -1, 1]  # RAS to LPS
    is_corrected = _CORRECTED[0] < np.abs(directions.ravel() - stored).max() < _CORRECTED[1]
    return [DSfloat(float(value), auto_format=True) for value in (directions.ravel() if is_corrected else stored)]


def _set_geometry(sources: Sequence[Dataset], orientation: list[DSfloat], spacing_mm: float) -> None:
    """Set the orientation and the slice spacing, which the segmentation copies, the latter to that of the positions.

    Headers may contradict their positions, and readers need it to place the frames that are left out. Slices of unknown
    thickness, which a segmentation may not have, become as thick as they are apart.
    """
    is_thickness_known = all(source.get("SliceThickness") for source in sources)
    for source in sources:
        source.ImageOrientationPatient = orientation
        source.SpacingBetweenSlices = spacing_mm
        if not is_thickness_known:
            source.SliceThickness = spacing_mm


def _share_geometry(source: Dataset, file: Path, first: DicomSlice, cosines: list[DSfloat], spacing_mm: float) -> None:
    """Move orientation and pixel measures of an enhanced file to the shared groups, and positions to the frames.

    highdicom expects them there; all frames agree. Raises DataError for several items of shared groups.
    """
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = cosines
    measures.PixelSpacing = first.header.PixelSpacing
    measures.SliceThickness = first.header.get("SliceThickness") or spacing_mm
    measures.SpacingBetweenSlices = spacing_mm
    items = source.get("SharedFunctionalGroupsSequence") or [Dataset()]
    if len(items) > 1:
        raise DataError(
            f"{file}: {len(items)} items in SharedFunctionalGroupsSequence, where one is allowed; export the series "
            "again, or leave out --dicom-seg"
        )
    shared = items[0]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    source.SharedFunctionalGroupsSequence = [shared]
    for item in source.PerFrameFunctionalGroupsSequence:
        if "PlanePositionSequence" not in item:  # a file of one frame may have it in the shared groups
            item.PlanePositionSequence = shared.PlanePositionSequence


def _descriptions(classes: Sequence[str], model_digest: str) -> list[SegmentDescription]:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="maag",
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        parameters={"model": model_digest} if model_digest else None,
    )
    described = []
    for value, name in enumerate(classes[1:], start=1):
        structure = _STRUCTURES.get(name.lower(), _Structure(_ANATOMY))
        segment = SegmentDescription(
            segment_number=value,
            segment_label=name[:_LONGEST_LABEL],
            segmented_property_category=_ANATOMY,
            segmented_property_type=structure.type,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_string(_COLOURS[(value - 1) % len(_COLOURS)]),
        )
        if structure.side is not None:
            side = highdicom.sr.CodedConcept.from_code(structure.side)
            segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
        described.append(segment)
    return described
