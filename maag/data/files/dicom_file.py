"""One DICOM file: the geometry of its slice, its series and its header."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import RTDoseStorage, SegmentationStorage

from maag.data.files.silencing import make_silenceable, silence
from maag.errors import DataError, MaagError, StorageError, first_line
from maag.storage import require_regular_file, storage_errors

_REQUIRED_TAGS = ["Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"]
GEOMETRY_TAGS = [*_REQUIRED_TAGS, "SliceThickness", "SpacingBetweenSlices", "NumberOfFrames"]
_ROUNDED = 0.03
"""By how much products of direction cosines may differ from 1 and 0, because some scanners write two decimals."""
_DECIMALS = range(2, 9)
_SAME_COSINE = 1e-10
SAME_MM = 1e-3
"""Slices closer than this are at one position."""
_MAX_PIXELS = 2**26
MALFORMED = (
    *(ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, NotImplementedError, RuntimeError),
    *(EOFError, BytesLengthException, struct.error, zlib.error),
)
"""What pydicom and its decoders raise for damaged files."""
_PREAMBLE_BYTES, _MAGIC = 128, b"DICM"
SUFFIXES = (".dcm", ".dicom", ".ima")
# The second is a label map.
_NO_IMAGES = (SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7", RTDoseStorage)
make_silenceable("pydicom", *(f"pydicom.pixels.{name}" for name in ("decoders.base", "encoders.base", "utils")))
UNREADABLE = "unreadable"
"""Instead of a series UID, for a file that should have one."""


@dataclass(frozen=True, slots=True)
class SliceGeometry:
    """The geometry of one slice."""

    shape: tuple[int, int]
    """(rows, columns)."""
    spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    orientation: tuple[float, ...]
    """Direction cosines of a row, then of a column, orthonormal; patient coordinates (LPS)."""
    position: tuple[float, ...]
    """Centre of the first pixel (x, y, z) in mm, LPS."""
    thickness_mm: float
    """Distance to the next slice according to the header; 1 if it does not say."""
    rounding: float = 0.0
    """Largest error of a direction cosine in the header, judged by its number of decimals."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector perpendicular to the slice, LPS."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def height_mm(self) -> float:
        """Position along the normal in mm."""
        return float(self.normal @ np.array(self.position))

    def has_grid_of(self, other: SliceGeometry) -> bool:
        """Whether both have the same shape, spacing and orientation."""
        return (
            self.shape == other.shape
            and np.allclose(self.spacing_mm, other.spacing_mm, atol=SAME_MM)
            and np.allclose(self.orientation, other.orientation, atol=SAME_MM)
        )


def read_geometry(path: Path) -> SliceGeometry:
    """Geometry from the header alone.

    Raises DataError for a file that is not a DICOM image, has several frames, or lacks its geometry; StorageError.
    """
    return geometry_of(read_dataset(path, stop_before_pixels=True, specific_tags=GEOMETRY_TAGS), path)


def geometry_of(header: pydicom.Dataset, name: str | Path) -> SliceGeometry:
    """Geometry of the slice with this header; `name` identifies it in errors. Raises DataError as `read_geometry`."""
    with naming_damage(name):
        frames = int(header.get("NumberOfFrames") or 1)
        missing = [tag for tag in _REQUIRED_TAGS if getattr(header, tag, None) is None]
        geometry = None if missing or frames > 1 else _geometry_of(header)
    # Checked before missing elements, because such files have their geometry in each frame.
    if frames > 1:
        raise DataError(
            f"{name}: holds {frames} frames, but each file must hold one grey slice; export the series as classic (not "
            "enhanced) DICOM, or convert it to NIfTI"
        )
    if geometry is None:
        raise DataError(
            f"{name}: DICOM without {', '.join(missing)}; export the series again with its geometry, or remove the file"
        )
    return geometry


def read_header(path: Path) -> pydicom.Dataset:
    """The parsed header without pixels. Raises DataError for a file that is not DICOM or damaged, StorageError."""
    header = read_dataset(path, stop_before_pixels=True)
    with naming_damage(path):
        header.walk(lambda dataset, element: None)
    return header


def series_uid(path: Path) -> str | None:
    """SeriesInstanceUID of a file, `unknown` if its header has none; None for a file that is not a DICOM image.

    Segmentations and radiation doses, which archives keep beside their images, do not count as images. UNREADABLE for a
    damaged header, or a file that is named as DICOM (SUFFIXES) but is not, so that reading the series reports it.
    Raises StorageError.
    """
    with storage_errors(path, "read"), path.open("rb") as stream:
        if stream.read(_PREAMBLE_BYTES + len(_MAGIC))[_PREAMBLE_BYTES:] != _MAGIC:
            return UNREADABLE if path.name.lower().endswith(SUFFIXES) else None
    try:
        header = read_dataset(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SeriesInstanceUID", "Rows"])
        with quiet_pydicom():
            is_image = header.get("Rows") and header.get("SOPClassUID") not in _NO_IMAGES
            return str(header.get("SeriesInstanceUID") or "unknown") if is_image else None
    except StorageError:
        raise
    except (OSError, *MALFORMED):
        return UNREADABLE


def _geometry_of(header: pydicom.Dataset) -> SliceGeometry:
    rows_mm, columns_mm = numbers(header.PixelSpacing, 2)
    if not (rows_mm > 0 and columns_mm > 0):
        raise ValueError(f"PixelSpacing {rows_mm:g} x {columns_mm:g} mm, which must be positive")
    shape = (int(header.Rows), int(header.Columns))
    if min(shape) < 1 or math.prod(shape) > _MAX_PIXELS:
        raise ValueError(f"{shape[0]} x {shape[1]} pixels, which nobody can use")
    thickness = header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1.0
    (thickness_mm,) = numbers([thickness], 1)
    orientation = numbers(header.ImageOrientationPatient, 6)
    directions = np.reshape(orientation, (2, 3))
    # Otherwise distances and volumes would be silently wrong.
    if not np.allclose(directions @ directions.T, np.eye(2), atol=_ROUNDED):
        raise ValueError(f"ImageOrientationPatient {list(orientation)}, which are not two perpendicular unit vectors")
    return SliceGeometry(
        shape=shape,
        spacing_mm=(rows_mm, columns_mm),
        orientation=tuple(nearest_orthonormal(directions).ravel().tolist()),
        position=numbers(header.ImagePositionPatient, 3),
        thickness_mm=abs(thickness_mm),
        rounding=_rounding_of(directions),
    )


def nearest_orthonormal(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (2, 3) perpendicular unit vectors nearest to two vectors that are almost so, by polar decomposition."""
    if np.array_equal(directions @ directions.T, np.eye(2)):
        return directions
    left, _, right = np.linalg.svd(directions, full_matrices=False)
    return np.asarray(left @ right)


def _rounding_of(directions: NDArray[np.float64]) -> float:
    """Half a unit of the last decimal; 0 for cosines along the patient's axes, which are exact."""
    if np.array_equal(directions, directions.round()):
        return 0.0
    exact = (decimals for decimals in _DECIMALS if np.abs(directions - directions.round(decimals)).max() < _SAME_COSINE)
    decimals = next(exact, None)
    return 0.0 if decimals is None else 0.5 * 10.0**-decimals


def numbers(values: Iterable[Any], count: int) -> tuple[float, ...]:
    """The `count` values of an element. Raises ValueError if there are more or fewer, or one is not finite."""
    found = tuple(float(value) for value in values)
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"{list(found)} instead of {count} numbers")
    return found


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom and NumPy: their warnings are harmless, or checked here and raised as an error."""
    with silence(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def read_dataset(
    path: Path, *, stop_before_pixels: bool = False, specific_tags: list[str] | None = None
) -> pydicom.Dataset:
    """The file; elements are parsed on access. Raises DataError for a file that is not DICOM, StorageError."""
    require_regular_file(path)
    try:
        with storage_errors(path, "read"), quiet_pydicom():
            return pydicom.dcmread(
                path,
                stop_before_pixels=stop_before_pixels,
                specific_tags=list(specific_tags) if specific_tags else None,
            )
    except (InvalidDicomError, *MALFORMED) as error:
        raise DataError(f"{path}: not a readable DICOM file; copy or export it again, or remove it") from error


@contextmanager
def naming_damage(name: str | Path) -> Iterator[None]:
    """Turn errors from parsing malformed elements into a DataError."""
    try:
        with quiet_pydicom():
            yield
    except MaagError:
        raise
    except (OSError, *MALFORMED) as error:
        raise DataError(f"{name}: a damaged header ({first_line(error)}); export the series again") from error
