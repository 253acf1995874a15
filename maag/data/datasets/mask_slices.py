"""Masks stored as one picture per DICOM slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from maag.data.files.dicom_file import read_geometry
from maag.data.files.pictures import load_indices
from maag.errors import DataError


def load_mask_slice(path: Path, image: Path) -> NDArray[Any]:
    """(Y, X) grey values of a mask, of colours the largest channel.

    Programs that make PNG files smaller store grey values as a palette, in any order.

    Raises DataError where its shape is not that of the DICOM slice `image`, or either is unreadable.
    """
    plane = load_indices(path, as_shown=True)
    plane = plane.max(axis=2) if plane.ndim == 3 else plane
    shape = read_geometry(image).shape
    if plane.shape != shape:
        raise DataError(f"{path}: has shape {plane.shape}, its image {image} {shape} (rows, columns); they must agree")
    return plane
