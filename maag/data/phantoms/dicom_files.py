"""Writing DICOM slices and PNG files; same content, same bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage, generate_uid

from maag.storage import replacing


def save_slice(
    path: Path,
    pixels: NDArray[np.uint16],
    *,
    spacing_mm: float,
    thickness_mm: float,
    position: tuple[float, float, float],
    series: str,
    number: int,
    tags: dict[str, Any] | None = None,
) -> None:
    """Write one axial MR slice (rows, columns) uint16.

    Args:
        path: the file.
        pixels: stored values.
        spacing_mm: between rows and between columns.
        thickness_mm: SliceThickness.
        position: ImagePositionPatient.
        series: seed of the series' UID.
        number: InstanceNumber.
        tags: further elements by keyword; None leaves a standard one out.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(number), path.name])
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    elements = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "MR",
        "PatientName": "PHANTOM",
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", series]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[series]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame of reference", series]),
        "InstanceNumber": number,
        "ImagePositionPatient": [round(value, 4) for value in position],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [round(spacing_mm, 5)] * 2,
        "SliceThickness": thickness_mm,
        "SliceLocation": round(position[2], 4),
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": pixels.astype("<u2").tobytes(),
        **(tags or {}),
    }
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


def save_png(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically."""
    with replacing(path) as temporary:
        image.save(temporary, format="png")
