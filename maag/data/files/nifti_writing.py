"""Writing labels, probabilities and volumes as NIfTI; labels on exactly the grid of their image."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from maag.data.files.gzip_parts import GzipPart, write_parts
from maag.data.files.nifti import open_nifti, quiet_nibabel, shape_of
from maag.data.files.nifti_header import without_trailing_ones
from maag.errors import DataError
from maag.storage import replacing, storage_errors

_PLAIN_DIMENSIONS = 3
_DESCRIPTION_BYTES = 79  # NIfTI's descrip has 80, the last one 0


def save_labels(path: Path, labels: NDArray[np.uint8], like: Path, classes: Sequence[str]) -> None:
    """Write (Z, Y, X) uint8 labels as NIfTI with exactly the grid, codes and units of the image `like`, atomically.

    Labels of a 4-D image are (T, Z, Y, X), and those of a 2-D image become 2-D. The header's description names the
    classes, cut to 79 bytes: `0 background, 1 RV`.

    Raises:
        DataError: `like` is unreadable or of another shape.
        StorageError: `path` cannot be written.
    """
    source = open_nifti(like)
    shape = without_trailing_ones(source.shape) if labels.ndim > _PLAIN_DIMENSIONS else shape_of(source, like)
    if labels.T.shape != shape:
        raise DataError(
            f"{path}: labels have shape {labels.T.shape}, the image {like} {shape} (x, y, z); they must agree"
        )
    of_one_slice = source.ndim < _PLAIN_DIMENSIONS
    voxels = labels[0].T if of_one_slice else labels.T
    # Without an affine of its own the new image keeps the header's sform and qform and their codes.
    with quiet_nibabel():
        image = type(source)(voxels, None, source.header.copy())
    image.header.set_data_dtype(np.uint8)
    image.header["cal_max"] = image.header["cal_min"] = 0
    image.header["descrip"] = description_of(classes)
    _write(path, image)


def description_of(classes: Sequence[str]) -> bytes:
    """The header's description of labels, cut to 79 bytes: `0 background, 1 RV`."""
    return _named(classes).encode("ascii", "replace")[:_DESCRIPTION_BYTES]


def fit_description(classes: Sequence[str]) -> bool:
    """Whether all class names fit into a header's description, in length and in ASCII."""
    return description_of(classes).decode() == _named(classes)


class ProbabilityWriter:
    """Streams class probabilities to 5-D NIfTI (x, y, z, time, class) without keeping them in memory.

    A context manager that discards an unfinished file. Classes follow each other in the file, so each is compressed
    into a temporary file of its own, in the folder of `path`, until all are complete.

    Args:
        path: the file, `.nii.gz`.
        num_classes: number of classes, background included.

    Raises:
        StorageError: the folder cannot be made or written, or the disk is full.
    """

    def __init__(self, path: Path, num_classes: int) -> None:
        self._path = path
        self._slices: tuple[int, ...] = ()
        """Of the slices so far: number, rows, columns."""
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._classes = [GzipPart(path.parent) for _ in range(num_classes)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for part in self._classes:
            part.close()

    def add(self, slices: NDArray[np.float32]) -> None:
        """Append slices (N, num_classes, Y, X), ordered by frame, then by z. Raises StorageError."""
        number = self._slices[0] if self._slices else 0
        self._slices = (number + len(slices), *slices.shape[2:])
        with storage_errors(self._path):
            for value, part in enumerate(self._classes):
                part.add(np.ascontiguousarray(slices[:, value], "<f4").data.cast("B"))

    def finish(self, num_frames: int, affine: NDArray[np.float64]) -> None:
        """Write the file atomically once all slices of `num_frames` volumes have been added.

        `affine` (4, 4) maps voxels (x, y, z) to world in mm. Raises StorageError.
        """
        number, rows, columns = self._slices
        image = nib.Nifti1Image(np.zeros([1] * 5, "<f4"), affine)
        image.header.set_intent("vector")
        image.header.set_xyzt_units("mm")
        image.header.set_slope_inter(1, 0)
        image.header.set_data_shape((columns, rows, number // num_frames, num_frames, len(self._classes)))
        header = io.BytesIO()
        image.header.write_to(header)
        with replacing(self._path) as temporary, temporary.open("wb") as file:
            first = GzipPart(self._path.parent)
            first.add(header.getvalue())
            write_parts([first, *self._classes], file)


def save_volume(
    path: Path,
    array: NDArray[np.generic],
    affine: NDArray[np.float64],
    *,
    sform: bool = True,
    description: bytes = b"",
) -> None:
    """Write a (Z, Y, X) or (T, Z, Y, X) array as NIfTI of its dtype, atomically; same content, same bytes.

    A qform cannot hold a shear, as slices of a tilted gantry have: its code is then 0, so that readers use the sform,
    and those that cannot (ITK) refuse the file instead of misplacing it.

    Args:
        path: `.nii` or `.nii.gz`.
        array: the voxels.
        affine: (4, 4) voxel (x, y, z) to world in mm.
        sform: set sform and qform; else only the qform, as ITK-SNAP does for scribbles.
        description: the header's description, up to 79 bytes.
    """
    image = nib.Nifti1Image(array.T, affine)
    image.set_qform(affine, code=1)
    if sform and _misplaces(image.get_qform(), affine, array.T.shape[:_PLAIN_DIMENSIONS]):
        image.set_qform(affine, code=0)
    image.set_sform(affine if sform else None, code=1 if sform else 0)
    image.header["descrip"] = description
    image.header.set_xyzt_units("mm")
    _write(path, image)


def _misplaces(qform: NDArray[np.float64], affine: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether the qform puts a corner of (X, Y, Z) voxels more than half of the least voxel size elsewhere."""
    corners = np.array(list(product(*((0, size - 1) for size in shape), (1,))))
    aside_mm = np.linalg.norm(corners @ (qform - affine).T, axis=1).max()
    return bool(aside_mm > np.linalg.norm(affine[:3, :3], axis=0).min() / 2)


def _write(path: Path, image: nib.Nifti1Image) -> None:
    # Level 9 makes ragged labels a tenth smaller in sixteen times the time, half as long as predicting them.
    with replacing(path) as temporary, quiet_nibabel(), temporary.open("wb") as file:
        if not path.name.lower().endswith(".gz"):
            image.to_stream(file)
            return
        # Without name and time, so that the same content gives the same bytes.
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            image.to_stream(packed)


def _named(classes: Sequence[str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in enumerate(classes))
