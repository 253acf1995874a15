"""Enhanced multi-frame DICOM files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

FRAME_SHAPE = (5, 4)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
GROUP_OF = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "ModalityLUTSequence": "UnassignedSharedConvertedAttributesSequence",
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "DimensionIndexValues": "FrameContentSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "TemporalPositionTimeOffset": "TemporalPositionSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "TriggerTime": "UnassignedPerFrameConvertedAttributesSequence",
}
"""The functional group that holds each element."""


def noise_frames(count: int) -> NDArray[np.uint16]:
    """Random stored values of shape (count, *FRAME_SHAPE), in [0, 900); deterministic for each count."""
    return np.random.default_rng(count).integers(0, 900, (count, *FRAME_SHAPE)).astype(np.uint16)


def frame_at(height_mm: float, **elements: Any) -> dict[str, Any]:
    """The elements of a frame at that height on the z axis."""
    return {"ImagePositionPatient": [0.0, 0.0, height_mm], **elements}


def functional_groups(elements: Mapping[str, Any]) -> Dataset:
    """An item with the functional groups of these elements; None omits an element."""
    item = Dataset()
    for keyword, value in elements.items():
        if value is not None:
            group = GROUP_OF[keyword]
            if group not in item:
                setattr(item, group, [Dataset()])
            setattr(item[group].value[0], keyword, value)
    return item


def save_enhanced(
    path: Path,
    pixels: NDArray[np.uint16],
    frames: Sequence[Mapping[str, Any]],
    *,
    shared: Mapping[str, Any] | None = None,
    dimensions: Sequence[str] = (),
    tags: Mapping[str, Any] | None = None,
    syntax: str = ExplicitVRLittleEndian,
) -> Path:
    """Write (frames, rows, columns) uint16 as an enhanced MR image.

    Args:
        path: the file to write.
        pixels: stored values.
        frames: the elements of each frame.
        shared: elements of all frames; the defaults are axial, 2.5 x 0.75 mm, 6 mm thick.
        dimensions: keywords of the elements that DimensionIndexValues counts.
        tags: further elements of the file; None omits a default one.
        syntax: the transfer syntax.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedMRImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    defaults = {"ImageOrientationPatient": list(AXIAL), "PixelSpacing": [2.5, 0.75], "SliceThickness": 6.0}
    pointers = []
    for keyword in dimensions:
        pointers.append(Dataset())
        pointers[-1].DimensionIndexPointer = Tag(keyword)
    elements = {
        "SOPClassUID": EnhancedMRImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "MR",
        "PatientName": "PHANTOM",
        "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series"]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame of reference"]),
        "InstanceNumber": 1,
        "NumberOfFrames": len(pixels),
        "Rows": pixels.shape[1],
        "Columns": pixels.shape[2],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "DimensionIndexSequence": pointers or None,
        "SharedFunctionalGroupsSequence": [functional_groups({**defaults, **(shared or {})})],
        "PerFrameFunctionalGroupsSequence": [functional_groups(frame) for frame in frames],
        "PixelData": pixels.astype("<u2").tobytes(),
        **(tags or {}),
    }
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if UID(syntax).is_compressed:
        dataset.compress(syntax, generate_instance_uid=False)
    meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
