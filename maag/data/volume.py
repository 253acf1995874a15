"""NIfTI files as arrays of slices, and label maps back as NIfTI on the very same grid."""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from maag.data.nifti_header import (
    require_invertible,
    require_one_spacing,
    require_possible,
    require_scan,
    without_trailing_ones,
)
from maag.errors import DataError
from maag.storage import replacing, require_regular_file, storage_errors

SUFFIXES = (".nii.gz", ".nii")

_PLAIN_DIMENSIONS = 3
_DESCRIPTION_BYTES = 79  # NIfTI's descrip holds 80, the last one 0
_HEADERS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
"""By the size with which each begins."""
_UNREADABLE = (
    *(ImageFileError, HeaderDataError, EOFError, ValueError, KeyError, OverflowError, TypeError),
    *(zlib.error, gzip.BadGzipFile),
)


@dataclass(frozen=True, eq=False, slots=True)
class Volume:
    """An image as slices."""

    voxels: NDArray[np.float32]
    """(C, Z, Y, X): channels, slices, rows, columns; a NIfTI's (x, y, z) transposed."""
    spacing_mm: tuple[float, float, float]
    """Voxel size (z, y, x)."""
    affine: NDArray[np.float64]
    """(4, 4) voxel (x, y, z) to world, as the NIfTI has it."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        _, depth, height, width = self.voxels.shape
        return depth, height, width


def load_volume(path: Path, time: int | None = None) -> Volume:
    """Read an image of one channel.

    Args:
        path: a NIfTI file.
        time: which volume of a 4-D image; None for a 3-D one.

    Raises:
        DataError: not NIfTI, truncated, of absurd or other than three dimensions, without a positive spacing or with
            two different ones, or with voxels that are NaN or infinite.
        StorageError: the file cannot be opened.
    """
    source = _open(path)
    require_scan(source.shape, source.get_data_dtype(), path, path.stat().st_size)
    # What overflows is infinite, and said below.
    with np.errstate(all="ignore"):
        voxels = _read_array(source, path, time).astype(np.float32, copy=False)
    bad = int(voxels.size - np.isfinite(voxels).sum())
    if bad:
        raise DataError(
            f"{path}: {bad} of {voxels.size} voxels are NaN or infinite; replace them, or leave the case out"
        )
    affine = np.eye(4) if source.affine is None else np.asarray(source.affine, dtype=np.float64)
    return Volume(voxels[None], _image_spacing(source, path), affine)


def load_channels(paths: Sequence[Path], time: int | None = None) -> Volume:
    """Read an image whose channels are files of their own, on one grid.

    Raises:
        DataError: as `load_volume`, or the files differ in shape or spacing.
        StorageError: a file cannot be opened.
    """
    volumes = [load_volume(path, time) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths, volumes, strict=True):
        if volume.shape != first.shape or not np.allclose(volume.spacing_mm, first.spacing_mm, rtol=1e-3):
            raise DataError(
                f"{path}: a channel of {volume.shape[::-1]} voxels of {volume.spacing_mm[::-1]} mm beside {paths[0]} "
                f"of {first.shape[::-1]} of {first.spacing_mm[::-1]} mm (x, y, z); bring them to one grid"
            )
    return Volume(np.concatenate([volume.voxels for volume in volumes]), first.spacing_mm, first.affine)


def num_volumes(path: Path) -> int:
    """How many volumes a 4-D image holds; 1 for a 3-D one. Raises as `load_volume`, and DataError for 5-D."""
    shape = without_trailing_ones(_open(path).shape)
    if len(shape) > _PLAIN_DIMENSIONS + 1:
        raise DataError(
            f"{path}: {len(shape)}-D of shape {shape}; a 3-D volume or a cine of one is needed: save each channel as "
            "a file"
        )
    return shape[3] if len(shape) > _PLAIN_DIMENSIONS else 1


def load_geometry(path: Path) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """The shape (Z, Y, X) and spacing (z, y, x) in mm from the header alone. Raises as `load_volume`."""
    source = _open(path)
    width, height, depth = _shape(source, path)
    return (depth, height, width), _image_spacing(source, path)


def load_orientation(path: Path) -> tuple[str | None, tuple[float, float, float]]:
    """To where x, y and z point, as `LPS`, None when the header does not say; and the spacing (z, y, x) in mm.

    Raises as `load_volume`, but takes any number of dimensions.
    """
    source = _open(path)
    told = any(int(source.header[code]) for code in ("qform_code", "sform_code"))
    return "".join(nib.aff2axcodes(source.affine)) if told else None, _spacing(source)


def load_labels(path: Path, allowed: Collection[int]) -> tuple[NDArray[np.uint8], tuple[float, float, float]]:
    """Read a mask or a scribble: (Z, Y, X) uint8 labels as in the file, and its spacing in mm (z, y, x).

    Raises:
        DataError: as `load_volume`, or a value is not an integer or not among `allowed`.
        StorageError: the file cannot be opened.
    """
    source = _open(path)
    values = _read_array(source, path)
    require_labels(values, allowed, path)
    return values.astype(np.uint8), _spacing(source)


def require_labels(values: NDArray[np.generic], allowed: Collection[int], path: Path) -> None:
    """Raise DataError when a value of the labels in `path` is not among `allowed`."""
    found, counts = np.unique(values, return_counts=True)
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        if value not in allowed:
            raise DataError(
                f"{path}: {count} voxels have label {value:g}, allowed are {_listed(allowed)}; "
                "correct the labels, or data.classes and data.unlabelled_value"
            )


def save_labels(path: Path, labels: NDArray[np.uint8], like: Path, classes: Sequence[str]) -> None:
    """Write (Z, Y, X) uint8 labels as NIfTI with exactly the grid, codes and units of the image `like`, atomically.

    Labels of a 4-D image are (T, Z, Y, X). The header's description names the classes as far as its 79 bytes go:
    `0 background, 1 RV`.

    Raises:
        DataError: `like` is unreadable or of another shape.
        StorageError: `path` cannot be written.
    """
    source = _open(like)
    shape = without_trailing_ones(source.shape) if labels.ndim > _PLAIN_DIMENSIONS else _shape(source, like)
    if labels.T.shape != shape:
        raise DataError(f"{path}: labels are {labels.T.shape}, the image {like} is {shape} (x, y, z); they must agree")
    # Without an affine of its own the new image keeps both of the header's forms and their codes.
    with _quiet_nibabel():
        image = type(source)(np.ascontiguousarray(labels.T), None, source.header.copy())
    image.header.set_data_dtype(np.uint8)
    image.header.set_slope_inter(1, 0)
    image.header["cal_max"] = image.header["cal_min"] = 0
    image.header["descrip"] = description_of(classes)
    _write(path, image)


def description_of(classes: Sequence[str]) -> bytes:
    """What a header's description says of the labels: `0 background, 1 RV`, as far as it goes."""
    return _named(classes).encode("ascii", "replace")[:_DESCRIPTION_BYTES]


def fit_description(classes: Sequence[str]) -> bool:
    """Whether a header's description has room for all of the names, and the letters."""
    return description_of(classes).decode() == _named(classes)


def save_probabilities(path: Path, probabilities: NDArray[np.float32], affine: NDArray[np.float64]) -> None:
    """Write class probabilities (T, Z, num_classes, Y, X) float32 as 5-D NIfTI (x, y, z, time, class), atomically.

    `affine` maps voxels (x, y, z) to the world. Raises StorageError.
    """
    image = nib.Nifti1Image(probabilities.transpose(4, 3, 1, 0, 2), affine)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    # Fractions of 32 bits pack little tighter with more patience.
    _write(path, image, compress_level=1)


def save_volume(
    path: Path,
    array: NDArray[np.generic],
    affine: NDArray[np.float64],
    *,
    sform: bool = True,
    description: bytes = b"",
) -> None:
    """Write a (Z, Y, X) array as NIfTI of its own dtype, the same bytes for the same content, atomically.

    Args:
        path: `.nii` or `.nii.gz`.
        array: the voxels.
        affine: (4, 4) voxel (x, y, z) to world in mm.
        sform: set both forms; else the qform alone, as ITK-SNAP saves a scribble.
        description: for the header, up to 79 bytes.
    """
    image = nib.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine if sform else None, code=1 if sform else 0)
    image.header["descrip"] = description
    image.header.set_xyzt_units("mm")
    _write(path, image)


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file; macOS's `._` companions are not."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith("._")


def _open(path: Path) -> nib.Nifti1Image:
    size = require_regular_file(path)
    header = _raw_header(path)
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        code = int(header["datatype"])
        raise DataError(f"{path}: voxels of unknown type (datatype {code}); export it again as grey values") from error
    # nibabel trusts a header, and turns a spacing of 0 into 1, which would resample and measure wrongly.
    require_possible(header, dtype, path, size)
    try:
        with _quiet_nibabel():
            image = nib.load(path)
    except (*_UNREADABLE, OSError) as error:
        raise DataError(f"{path}: not a readable NIfTI file ({_first_line(error)}); export it again") from error
    if not isinstance(image, nib.Nifti1Image):
        raise DataError(f"{path}: a {type(image).__name__}, not NIfTI; convert it to .nii.gz")
    if image.affine is not None:
        require_invertible(image.affine, path)
    return image


def _raw_header(path: Path) -> nib.Nifti1Header:
    """The header as it is in the file, of either version and byte order, nothing mended."""
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
            raise DataError(f"{path}: not a readable NIfTI file ({_first_line(error)}); export it again") from error
    raise DataError(f"{path}: not a readable NIfTI file (it does not begin with a header); export it again")


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """What nibabel and NumPy would log about a header is checked here, and said in a sentence."""
    logger = nib.imageglobals.logger
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _read_array(image: nib.Nifti1Image, path: Path, time: int | None = None) -> NDArray[np.generic]:
    shape = _shape(image, path) if time is None else tuple(image.shape[:3])
    try:
        array = np.asarray(image.dataobj if time is None else image.dataobj[:, :, :, time])
    except (*_UNREADABLE, OSError) as error:
        raise DataError(f"{path}: truncated or damaged ({_first_line(error)}); copy or export it again") from error
    return np.ascontiguousarray(array.reshape(shape).T)


def _shape(image: nib.Nifti1Image, path: Path) -> tuple[int, int, int]:
    shape = without_trailing_ones(image.shape)
    if len(shape) != 3:
        raise DataError(f"{path}: {len(shape)}-D of shape {shape}; a 3-D volume is needed: save one frame as a file")
    return shape[0], shape[1], shape[2]


def _image_spacing(image: nib.Nifti1Image, path: Path) -> tuple[float, float, float]:
    """As `_spacing`; of labels it is not asked, for they go by their image's."""
    spacing = _spacing(image)
    if image.affine is not None:
        require_one_spacing(image.affine, spacing, path)
    return spacing


def _spacing(image: nib.Nifti1Image) -> tuple[float, float, float]:
    x, y, z = (float(zoom) for zoom in image.header.get_zooms()[:3])
    return z, y, x


def _write(path: Path, image: nib.Nifti1Image, compress_level: int = 9) -> None:
    # Voxels go to the file part by part: of probabilities there are gigabytes.
    with replacing(path) as temporary, _quiet_nibabel(), temporary.open("wb") as file:
        if not path.name.lower().endswith(".gz"):
            image.to_stream(file)
            return
        # Without a name and a time, so that the same content gives the same bytes.
        with gzip.GzipFile("", "wb", compress_level, file, mtime=0) as packed:
            image.to_stream(packed)


def _named(classes: Sequence[str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in enumerate(classes))


def _listed(values: Collection[int]) -> str:
    return ", ".join(str(value) for value in sorted(values))


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
