"""A training grid for data of unknown geometry: their median spacing, and room for almost all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maag.data.label_files import geometry_of

_MOST_IMAGES = 200  # headers looked at; more would not change a median
_LARGEST_SIDE_PX = 512
_ROOM_PERCENTILE = 95


def choose_grid(images: Sequence[Path]) -> dict[str, Any]:
    """Dotted settings for `images`: `data.spacing_mm` and `data.size_px`.

    The spacing is the median in-plane one, made coarser where the field of view of the 95th percentile would not fit
    into 512 pixels; sides are multiples of 16. Raises DataError for an unreadable image.
    """
    step = max(1, len(images) // _MOST_IMAGES)
    facts = [geometry_of(path) for path in images[::step]]
    spacings = np.array([spacing[1:] for _, spacing in facts])
    sides_mm = np.array([shape[1:] for shape, _ in facts]) * spacings
    room_mm = np.percentile(sides_mm, _ROOM_PERCENTILE, axis=0)
    spacing_mm = max(float(np.median(spacings)), float(room_mm.max()) / _LARGEST_SIDE_PX)
    size = [min(_LARGEST_SIDE_PX, 16 * math.ceil(side / spacing_mm / 16 - 1e-6)) for side in room_mm]
    return {"data.spacing_mm": round(spacing_mm, 6), "data.size_px": size}
