"""Opening NIfTI files; what nibabel would silently repair or ignore is refused with an error."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from maag.data.files.nifti_header import (
    require_invertible,
    require_one_spacing,
    require_possible,
    without_trailing_ones,
)
from maag.data.files.orientation import orientation_code
from maag.data.files.silencing import make_silenceable, silence
from maag.errors import DataError, first_line
from maag.storage import require_regular_file, storage_errors

SUFFIXES = (".nii.gz", ".nii")
make_silenceable(nib.imageglobals.logger.name)

_HEADERS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
"""By header size, the first field of each."""
_MM_PER_UNIT = {1: 1e3, 3: 1e-3}
"""By the header's code of metres and micrometres."""
_BYTES_AT_ONCE = 2**18
"""A multiple of every voxel's size."""
_UNREADABLE = (
    *(ImageFileError, HeaderDataError, EOFError, ValueError, KeyError, OverflowError, TypeError),
    *(zlib.error, gzip.BadGzipFile),
)


def is_nifti(path: Path) -> bool:
    """Whether the name is a NIfTI file's; macOS's `._` companions are not."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith("._")


def open_nifti(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI-1 or NIfTI-2 file; its voxels stay on disk.

    Raises:
        DataError: not NIfTI, or a header that cannot be right.
        StorageError: the file cannot be opened.
    """
    size = require_regular_file(path)
    header = _raw_header(path)
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        code = int(header["datatype"])
        raise DataError(
            f"{path}: voxels of unknown type (datatype {code}); export it again with grey values"
        ) from error
    # nibabel trusts the header and turns a spacing of 0 into 1, which would give wrong resampling and measures.
    require_possible(header, dtype, path, size)
    try:
        with quiet_nibabel():
            image = nib.load(path)
    except (*_UNREADABLE, OSError) as error:
        raise DataError(f"{path}: not a readable NIfTI file ({first_line(error)}); export it again") from error
    if not isinstance(image, nib.Nifti1Image):
        raise DataError(f"{path}: a {type(image).__name__}, not NIfTI; convert it to .nii.gz")
    if image.affine is not None:
        require_invertible(image.affine, path)
    return image


def _raw_header(path: Path) -> nib.Nifti1Header:
    """The header as in the file, of either version and byte order, without nibabel's repairs."""
    with storage_errors(path, "read"):
        try:
            with nib.openers.ImageOpener(str(path)) as stream:
                start = stream.read(max(_HEADERS))
            for order in ("little", "big"):
                kind = _HEADERS.get(int.from_bytes(start[:4], order))
                if kind is not None:
                    header: nib.Nifti1Header = kind(start[: kind.template_dtype.itemsize], check=False)
                    return header
        except _UNREADABLE as error:
            raise DataError(f"{path}: not a readable NIfTI file ({first_line(error)}); export it again") from error
    raise DataError(f"{path}: not a readable NIfTI file (it does not begin with a header); export it again")


@contextmanager
def quiet_nibabel() -> Iterator[None]:
    """Silence nibabel's and NumPy's messages about headers, which are checked here."""
    with silence(), np.errstate(all="ignore"):
        yield


def read_array(image: nib.Nifti1Image, path: Path, time: int | None = None) -> NDArray[np.generic]:
    """The voxels as (Z, Y, X), for a 4-D image those at index `time`. Raises DataError."""
    shape = shape_of(image, path) if time is None else tuple(image.shape[:3])
    try:
        array = np.asarray(image.dataobj if time is None else image.dataobj[:, :, :, time])
    except (*_UNREADABLE, OSError) as error:
        raise _damaged(path, error) from error
    return np.ascontiguousarray(array.reshape(shape).T)


def read_parts(image: nib.Nifti1Image, path: Path) -> Iterator[NDArray[np.generic]]:
    """The voxels in the file's order, in flat chunks, so that reading may stop early. Raises DataError."""
    proxy: Any = image.dataobj
    left = math.prod(image.shape) * proxy.dtype.itemsize
    try:
        with nib.openers.ImageOpener(str(path)) as stream:
            stream.seek(proxy.offset)
            while left:
                part = stream.read(min(left, _BYTES_AT_ONCE))
                if len(part) < min(left, _BYTES_AT_ONCE):
                    raise EOFError(f"{left - len(part)} bytes of voxels are missing")
                left -= len(part)
                yield apply_read_scaling(np.frombuffer(part, proxy.dtype), proxy.slope, proxy.inter)
    except (*_UNREADABLE, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path}: truncated or damaged ({first_line(error)}); copy or export it again")


def shape_of(image: nib.Nifti1Image, path: Path) -> tuple[int, int, int]:
    """(X, Y, Z), for a 2-D image (X, Y, 1). Raises DataError for images with further dimensions."""
    shape = without_trailing_ones(image.shape)
    if len(shape) not in (2, 3):
        raise DataError(
            f"{path}: {len(shape)}-D of shape {shape}; a slice or a 3-D volume is needed: save one frame as a file"
        )
    x, y, z = (*shape, 1)[:3]
    return x, y, z


def image_spacing_of(image: nib.Nifti1Image, path: Path) -> tuple[float, float, float]:
    """As `spacing_of`, for images; labels use their image's. Raises DataError where affine and pixdim disagree."""
    spacing = spacing_of(image)
    if image.affine is not None:
        require_one_spacing(affine_of(image), spacing, path)
    return spacing


def closest_orientation_of(image: nib.Nifti1Image) -> str | None:
    """Orientation code such as `LPS`, also for oblique axes; None where the header does not record it."""
    recorded = any(int(image.header[code]) for code in ("qform_code", "sform_code"))
    return "".join(nib.aff2axcodes(image.affine)) if recorded else None


def orientation_of(image: nib.Nifti1Image) -> str | None:
    """Orientation code such as `LPS`; None for oblique axes, or where the header does not record it."""
    return orientation_code(affine_of(image)) if closest_orientation_of(image) else None


def spacing_of(image: nib.Nifti1Image) -> tuple[float, float, float]:
    """Voxel size (z, y, x) in mm; along axes that the image does not have, the affine's, or 1."""
    by_pixdim = [float(zoom) * _mm_per_unit(image) for zoom in image.header.get_zooms()[:3]]
    by_affine = np.linalg.norm(affine_of(image)[:3, :3], axis=0)
    x, y, z = by_pixdim + [float(length) for length in by_affine[len(by_pixdim) :]]
    return z, y, x


def affine_of(image: nib.Nifti1Image) -> NDArray[np.float64]:
    """(4, 4) voxel (x, y, z) to world in mm; the identity where the header has no affine."""
    if image.affine is None:
        return np.eye(4)
    return np.diag([*[_mm_per_unit(image)] * 3, 1.0]) @ np.asarray(image.affine, dtype=np.float64)


def _mm_per_unit(image: nib.Nifti1Image) -> float:
    """Millimetres per unit of length of the header, as ITK reads it; an unknown unit is mm."""
    return _MM_PER_UNIT.get(int(image.header["xyzt_units"]) % 8, 1.0)
