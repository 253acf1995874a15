"""A training grid from the images' spacings and sizes, for data sets without a known one.

Unreadable images are skipped; reading the cases reports them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from maag.config.networks import SIZE_MULTIPLE
from maag.data.files.label_files import geometry_of, load_image
from maag.errors import DataError, StorageError

T = TypeVar("T")

_MOST_IMAGES = 200  # about so many headers are read; more would hardly change a median
_LARGEST_SIDE_PX = 512
_ROOM_PERCENTILE = 95


def choose_grid(images: Sequence[Path]) -> dict[str, Any]:
    """Dotted settings for `images`: `data.spacing_mm` and `data.size_px`.

    The spacing is the median in-plane spacing, or a coarser one where the 95th percentile of the fields of view would
    not fit into 512 pixels; sides are multiples of 16. Raises as `geometry_of` where no image can be read.
    """
    step = max(1, len(images) // _MOST_IMAGES)
    facts = list(_readable(images[::step], geometry_of))
    spacings = np.array([spacing[1:] for _, spacing in facts])
    sides_mm = np.array([shape[1:] for shape, _ in facts]) * spacings
    room_mm = np.percentile(sides_mm, _ROOM_PERCENTILE, axis=0)
    spacing_mm = max(float(np.median(spacings)), float(room_mm.max()) / _LARGEST_SIDE_PX)
    multiples = [math.ceil(side / spacing_mm / SIZE_MULTIPLE - 1e-6) for side in room_mm]
    size = [min(_LARGEST_SIDE_PX, SIZE_MULTIPLE * multiple) for multiple in multiples]
    # In the shortest digits of 32 bits, as in headers; to six decimals .7421875 mm was rounded up, and 512 became 511.
    return {"data.spacing_mm": float(str(np.float32(spacing_mm))), "data.size_px": size}


def count_channels(images: Sequence[Path]) -> int:
    """Number of channels in the first file that can be read. Raises as `load_image` where none can."""
    return next(_readable(images, lambda path: len(load_image([path]).voxels)))


def _readable(images: Sequence[Path], read: Callable[[Path], T]) -> Iterator[T]:
    """Results of `read` for the images that it can read. Raises its first error where it can read none."""
    errors: list[DataError | StorageError] = []
    for path in images:
        try:
            yield read(path)
        except (DataError, StorageError) as error:
            errors.append(error)
    if errors and len(errors) == len(images):
        raise errors[0]
