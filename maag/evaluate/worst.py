"""The worst cases of an evaluation, collected during it for display."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maag.data.files.volume import Volume
from maag.evaluate.report import CaseScores
from maag.labels import BACKGROUND, IGNORE

_MARGIN = 0.4
"""Around the structures, as a fraction of their size."""
_MIN_MARGIN_PX = 16


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ShownSlice:
    """The slice of a case with the most wrong pixels, cropped around its structures."""

    case: CaseScores
    number: int
    """Of the slice in its volume, from 1."""
    image: NDArray[np.float32]
    """(Y, X), the first channel."""
    reference: NDArray[np.uint8]
    """(Y, X) labels of the mask."""
    prediction: NDArray[np.uint8]
    """(Y, X) labels."""
    pixel_mm: tuple[float, float]
    """Pixel size (y, x)."""


@dataclass(order=True, slots=True)
class _Ranked:
    dice: float
    """Negated, so that the best of the kept cases is first in the heap and leaves first."""
    number: int
    shown: ShownSlice = field(compare=False)


class WorstCases:
    """Keeps a slice of each of the `count` cases with the lowest mean Dice; cases without a Dice are left out."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._kept: list[_Ranked] = []

    def __call__(
        self, case: CaseScores, volume: Volume, prediction: NDArray[np.uint8], reference: NDArray[np.uint8]
    ) -> None:
        """Add a case; labels are (Z, Y, X) uint8 on the grid of `volume`."""
        dice = case.mean_dice
        if dice is None:
            return
        self._seen += 1
        if len(self._kept) == self._count and -dice <= self._kept[0].dice:
            return
        heapq.heappush(self._kept, _Ranked(-dice, -self._seen, _shown(case, volume, prediction, reference)))
        if len(self._kept) > self._count:
            heapq.heappop(self._kept)

    @property
    def slices(self) -> tuple[ShownSlice, ...]:
        """Worst first."""
        return tuple(ranked.shown for ranked in sorted(self._kept, reverse=True))


def _shown(case: CaseScores, volume: Volume, prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> ShownSlice:
    wrong = (prediction != reference) & (reference != IGNORE)
    place = int(wrong.sum(axis=(1, 2)).argmax())
    structures = (prediction[place] != BACKGROUND) | ((reference[place] != BACKGROUND) & (reference[place] != IGNORE))
    window = tuple(_window(structures.any(axis=other)) for other in (1, 0))
    return ShownSlice(
        case=case,
        number=place + 1,
        # Copies, because views would keep whole volumes in memory.
        image=volume.voxels[0, place][window].copy(),
        reference=reference[place][window].copy(),
        prediction=prediction[place][window].copy(),
        pixel_mm=volume.spacing_mm[1:],
    )


def _window(structure: NDArray[np.bool_]) -> slice:
    """Along one axis, from the first to the last True value plus a margin; the whole axis if there is none."""
    inside = np.flatnonzero(structure)
    if not len(inside):
        return slice(0, len(structure))
    first, last = int(inside[0]), int(inside[-1]) + 1
    margin = max(_MIN_MARGIN_PX, round(_MARGIN * (last - first)))
    return slice(max(0, first - margin), last + margin)
