"""The pixels of DICOM files as intensities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from maag.data.files.dicom_file import MALFORMED, quiet_pydicom, read_dataset
from maag.errors import DataError, first_line
from maag.storage import storage_errors

_NO_LENGTH = 0xFFFFFFFF
_NATIVE = (
    *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian),
    DeflatedExplicitVRLittleEndian,
)


def read_pixels(path: Path) -> NDArray[np.float32]:
    """(rows, columns) float32 of a single-slice file, rescaled as in its header, or through its Modality LUT.

    Raises:
        DataError: a file without readable grey pixels.
        StorageError: it cannot be opened.
    """
    dataset = read_dataset(path)
    if "PixelData" not in dataset:
        raise DataError(f"{path}: DICOM without pixel data; export the series again, with its images")
    # Only compressed pixels have no length.
    is_compressed = getattr(dataset.get_item("PixelData"), "length", 0) == _NO_LENGTH
    plane = _decoded(lambda: apply_modality_lut(dataset.pixel_array, dataset), path, is_compressed)
    return _as_intensities(plane, path)


def read_frames(path: Path, frames: Sequence[int], scales: Sequence[tuple[float, float]]) -> list[NDArray[np.float32]]:
    """(rows, columns) float32 of each of the given frames of an enhanced file; no other is decoded.

    Args:
        path: of the file.
        frames: indices from 0, in any order.
        scales: rescale slope and intercept of each.

    Raises as `read_pixels`.
    """
    with storage_errors(path, "read"):
        path.open("rb").close()
    syntax = _decoded(lambda: read_file_meta_info(path).TransferSyntaxUID, path, is_compressed=False)
    # pydicom cannot seek frames in a deflated file.
    source = read_dataset(path) if syntax == DeflatedExplicitVRLittleEndian else path
    is_compressed = syntax not in _NATIVE
    planes = _decoded(lambda: list(iter_pixels(source, indices=frames)), path, is_compressed)
    with np.errstate(all="ignore"):  # Overflow becomes infinite, and is refused below.
        return [
            _as_intensities(plane * slope + intercept, path)
            for plane, (slope, intercept) in zip(planes, scales, strict=True)
        ]


def _decoded(decode: Callable[[], Any], path: Path, is_compressed: bool) -> Any:
    try:
        with quiet_pydicom():
            return decode()
    except (OSError, *MALFORMED) as error:
        way_out = (
            "export the series uncompressed, or install one more decoder (pip install python-gdcm)"
            if is_compressed
            else "copy or export it again"
        )
        raise DataError(f"{path}: its pixels cannot be decoded ({first_line(error)}); {way_out}") from error


def _as_intensities(plane: NDArray[Any], path: Path) -> NDArray[np.float32]:
    if plane.ndim != 2:
        raise DataError(
            f"{path}: pixels of shape {plane.shape}, but a slice must be (rows, columns) of grey values; export it so"
        )
    with np.errstate(all="ignore"):
        intensities = np.asarray(plane, dtype=np.float32)
    if not np.isfinite(intensities).all():
        raise DataError(f"{path}: some pixels are NaN or infinite after rescaling; export the series again")
    return intensities
