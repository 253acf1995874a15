"""DICOM slices as a volume, in the order in which they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_rescale

from maag.data.volume import Volume
from maag.errors import DataError
from maag.storage import storage_errors

_HEADER_TAGS = [
    *("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
    *("SliceThickness", "SpacingBetweenSlices"),
]
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SAME_MM = 1e-3
_PREAMBLE_BYTES, _MAGIC = 128, b"DICM"


@dataclass(frozen=True, slots=True)
class SliceGeometry:
    """Where one slice lies."""

    shape: tuple[int, int]
    """(rows, columns)."""
    spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    orientation: tuple[float, ...]
    """Direction cosines of a row, then of a column; patient coordinates (LPS)."""
    position: tuple[float, ...]
    """Of the first pixel's centre, in mm."""
    thickness_mm: float
    """Distance to the next slice as the header has it; 1 where it has none."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def height_mm(self) -> float:
        """How far along the normal it lies."""
        return float(self.normal @ np.array(self.position))


def read_geometry(path: Path) -> SliceGeometry:
    """From the header alone. Raises DataError for a file that is no DICOM image or says too little of where it is."""
    header = _read(path, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
    missing = [tag for tag in _HEADER_TAGS[:5] if getattr(header, tag, None) is None]
    if missing:
        raise DataError(f"{path}: DICOM without {', '.join(missing)}; export the series again with its geometry")
    rows_mm, columns_mm = (float(value) for value in header.PixelSpacing)
    if not (rows_mm > 0 and columns_mm > 0):
        raise DataError(f"{path}: PixelSpacing {rows_mm:g} x {columns_mm:g} mm; it must be positive: correct it")
    thickness = header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0
    return SliceGeometry(
        shape=(int(header.Rows), int(header.Columns)),
        spacing_mm=(rows_mm, columns_mm),
        orientation=tuple(float(value) for value in header.ImageOrientationPatient),
        position=tuple(float(value) for value in header.ImagePositionPatient),
        thickness_mm=abs(float(thickness)),
    )


def read_header(path: Path) -> pydicom.Dataset:
    """Everything but the pixels. Raises DataError for a file that is no DICOM, StorageError."""
    return _read(path, stop_before_pixels=True)


def series_uid(path: Path) -> str | None:
    """Which series a file belongs to, `unknown` where its header does not say; None for a file that is no DICOM image.

    Raises StorageError.
    """
    with storage_errors(path, "read"), path.open("rb") as stream:
        if stream.read(_PREAMBLE_BYTES + len(_MAGIC))[_PREAMBLE_BYTES:] != _MAGIC:
            return None
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Rows"])
    return str(header.get("SeriesInstanceUID") or "unknown") if header.get("Rows") else None


def order_of_slices(paths: Sequence[Path]) -> list[int]:
    """Places in `paths` from the lowest slice to the highest along their normal.

    Raises:
        DataError: slices of different shape, spacing or orientation, or two at one place.
    """
    slices = [read_geometry(path) for path in paths]
    first = slices[0]
    for path, other in zip(paths, slices, strict=True):
        if (
            other.shape != first.shape
            or not np.allclose(other.spacing_mm, first.spacing_mm, atol=_SAME_MM)
            or not np.allclose(other.orientation, first.orientation, atol=_SAME_MM)
        ):
            raise DataError(
                f"{path}: a slice of {other.shape[0]} x {other.shape[1]} pixels of {other.spacing_mm} mm, {paths[0]} "
                f"of the same volume has {first.shape[0]} x {first.shape[1]} of {first.spacing_mm} mm or another "
                "direction; take it out of the folder, or move it to one of its own"
            )
    order = sorted(range(len(paths)), key=lambda place: slices[place].height_mm)
    for lower, higher in pairwise(order):
        if slices[higher].height_mm - slices[lower].height_mm < _SAME_MM:
            raise DataError(f"{paths[higher]}: lies at the place of {paths[lower]}; keep one of them in the volume")
    return order


def load_series(paths: Sequence[Path]) -> Volume:
    """Read slices as a volume, lowest first; intensities rescaled as the headers say.

    Raises:
        DataError: as `order_of_slices`, or a file without readable grey pixels.
        StorageError: a file cannot be opened.
    """
    ordered = [paths[place] for place in order_of_slices(paths)]
    planes = [_pixels(path) for path in ordered]
    first, last = read_geometry(ordered[0]), read_geometry(ordered[-1])
    rows_mm, columns_mm = first.spacing_mm
    between_mm = (last.height_mm - first.height_mm) / (len(ordered) - 1) if len(ordered) > 1 else first.thickness_mm
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * columns_mm
    affine[:3, 1] = np.array(first.orientation[3:]) * rows_mm
    affine[:3, 2] = first.normal * between_mm
    affine[:3, 3] = first.position
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    return Volume(np.stack(planes)[None], (between_mm, rows_mm, columns_mm), affine)


def _pixels(path: Path) -> NDArray[np.float32]:
    dataset = _read(path)
    if "PixelData" not in dataset:
        raise DataError(f"{path}: DICOM without pixel data; export the series again, with its images")
    try:
        plane = np.asarray(apply_rescale(dataset.pixel_array, dataset), dtype=np.float32)
    except (ValueError, AttributeError, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"{path}: its pixels cannot be decoded ({str(error).splitlines()[0]}); export the series uncompressed"
        ) from error
    if plane.ndim != 2:
        raise DataError(f"{path}: pixels of shape {plane.shape}; one grey slice a file is needed: export it so")
    return plane


def _read(
    path: Path, *, stop_before_pixels: bool = False, specific_tags: list[str] | None = None
) -> pydicom.Dataset:
    try:
        with storage_errors(path, "read"):
            return pydicom.dcmread(
                path, stop_before_pixels=stop_before_pixels, specific_tags=list(specific_tags) if specific_tags else None
            )
    except (InvalidDicomError, EOFError) as error:
        raise DataError(f"{path}: not a readable DICOM file; copy or export it again, or take it out") from error
