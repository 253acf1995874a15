"""One case read whole and checked: what the cache is built from, and what `maag data check` looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maag.config.schema import DataConfig
from maag.data.cases import Case
from maag.data.volume import Volume, load_labels, load_volume
from maag.errors import DataError
from maag.labels import BACKGROUND, IGNORE


@dataclass(frozen=True, eq=False, slots=True)
class CaseArrays:
    """A case's volume with its labels on the same grid."""

    volume: Volume
    scribble: NDArray[np.uint8] | None
    """(Z, Y, X), IGNORE where no stroke is."""
    mask: NDArray[np.uint8] | None
    """(Z, Y, X)."""


def read_case(case: Case, data: DataConfig) -> CaseArrays:
    """Read the files of `case`.

    Affines of image, scribble and mask may differ, as the published scribbles' do; shapes may not.

    Raises:
        DataError: a file is unreadable or would train wrongly; the sentence names it and the way out.
        StorageError: a file cannot be opened.
    """
    volume = load_volume(case.image)
    mask = None
    if case.mask is not None:
        mask, _ = load_labels(case.mask, range(data.num_classes))
        _require_shape(mask, volume, f"mask {case.mask}", case)
    scribble = None
    if case.scribble is not None:
        scribble, _ = load_labels(case.scribble, {*range(data.num_classes), data.unlabelled_value})
        _require_shape(scribble, volume, f"scribble {case.scribble}", case)
        scribble = np.where(scribble == data.unlabelled_value, np.uint8(IGNORE), scribble)
        if not (scribble == BACKGROUND).any():
            raise DataError(
                f"{case.scribble}: no voxel is scribbled as background ({BACKGROUND}); without one everything would "
                "become foreground: draw at least one background stroke per volume, or check data.unlabelled_value"
            )
    return CaseArrays(volume, scribble, mask)


def _require_shape(labels: NDArray[np.uint8], volume: Volume, what: str, case: Case) -> None:
    if labels.shape != volume.voxels.shape:
        raise DataError(
            f"{what} is {labels.shape[::-1]}, its image {case.image} is {volume.voxels.shape[::-1]} (x, y, z); "
            "they must have the same shape: export both from the same volume"
        )
