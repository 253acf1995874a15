"""Agreement of volumes and derived measures between predictions and masks: bias, limits of agreement, correlation."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maag.evaluate.heart import VENTRICLES, end_frames, measure_heart, measure_names
from maag.labels import BACKGROUND, IGNORE

_MM3_PER_ML = 1000
_LIMITS = 1.96
"""Standard deviations to either side of the mean that contain 95 % of normally distributed differences."""
_FEWEST = 3
"""Pairs for a correlation: two points always lie on a line."""
_NO_SPREAD = 1e-9
"""Relative to the largest value: a smaller range is rounding error, and has no meaningful correlation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One quantity from the mask and from the prediction."""

    reference: float
    predicted: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Agreement of one quantity over cases or hearts, in its own unit (Bland and Altman, Lancet 1986)."""

    n: int
    reference_mean: float
    bias: float
    """Mean of predicted - reference."""
    sd: float | None
    """Sample standard deviation of these differences; None for one pair."""
    lower: float | None
    """Limit of agreement: bias - 1.96 sd."""
    upper: float | None
    mae: float
    """Mean absolute difference."""
    correlation: float | None
    """Pearson's; None for fewer than three pairs, or if either quantity is constant."""

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Agreement:
        """The agreement of at least one pair."""
        differences = [pair.predicted - pair.reference for pair in pairs]
        bias = statistics.fmean(differences)
        sd = statistics.stdev(differences) if len(pairs) > 1 else None
        return cls(
            n=len(pairs),
            reference_mean=statistics.fmean(pair.reference for pair in pairs),
            bias=bias,
            sd=sd,
            lower=None if sd is None else bias - _LIMITS * sd,
            upper=None if sd is None else bias + _LIMITS * sd,
            mae=statistics.fmean(map(abs, differences)),
            correlation=_correlation(pairs),
        )


def volume_pairs(
    prediction: NDArray[np.uint8], reference: NDArray[np.uint8], spacing_mm: Sequence[float], classes: Sequence[str]
) -> dict[str, Pair]:
    """Volumes in ml by foreground class; voxels that are IGNORE in the reference count in neither, as in the scores.

    Args:
        prediction: (Z, Y, X) uint8 labels.
        reference: (Z, Y, X) uint8 labels; IGNORE where unlabelled.
        spacing_mm: voxel size (z, y, x).
        classes: names in the order of their label values, background first.
    """
    voxel_ml = math.prod(spacing_mm) / _MM3_PER_ML
    known = reference != IGNORE
    return {
        name: Pair(
            reference=voxel_ml * int((reference == value).sum()),
            predicted=voxel_ml * int(((prediction == value) & known).sum()),
        )
        for value, name in enumerate(classes)
        if value != BACKGROUND
    }


def heart_pairs(
    frames: Mapping[str, Mapping[int, Mapping[str, Pair]]], classes: Iterable[str]
) -> dict[str, dict[str, Pair]]:
    """Measures of the heart from masks and predictions, by heart and measure.

    End-diastole and end-systole are determined from the masks for both, so that a wrong choice of frame hides no error.

    Args:
        frames: volumes in ml by heart, frame and class.
        classes: of the foreground.

    Returns:
        Hearts with at least two frames whose masks show a left ventricle, sorted by name, with the measures that both
        have; empty if no class is the left ventricle.
    """
    names = tuple(classes)
    if VENTRICLES[0] not in names:
        return {}
    found = {}
    for heart, by_frame in sorted(frames.items()):
        real = {frame: {name: pair.reference for name, pair in pairs.items()} for frame, pairs in by_frame.items()}
        predicted = {frame: {name: pair.predicted for name, pair in pairs.items()} for frame, pairs in by_frame.items()}
        if ends := end_frames(real):
            full, empty = ends
            reference = measure_heart(real[full], real[empty])
            measured = measure_heart(predicted[full], predicted[empty])
            found[heart] = {
                name: Pair(reference=real_value, predicted=value)
                for name in measure_names(names)
                if (real_value := reference[name]) is not None and (value := measured[name]) is not None
            }
    return found


def agreements(pairs: Mapping[str, Mapping[str, Pair]]) -> dict[str, Agreement]:
    """Agreement by quantity, over the cases or hearts that have it; `pairs` are by case or heart."""
    by_quantity: dict[str, list[Pair]] = defaultdict(list)
    for quantities in pairs.values():
        for name, pair in quantities.items():
            by_quantity[name].append(pair)
    return {name: Agreement.of(found) for name, found in by_quantity.items()}


def _correlation(pairs: Sequence[Pair]) -> float | None:
    sides = [pair.reference for pair in pairs], [pair.predicted for pair in pairs]
    if len(pairs) < _FEWEST or not all(map(_varies, sides)):
        return None
    return statistics.correlation(*sides)


def _varies(values: Sequence[float]) -> bool:
    return max(values) - min(values) > _NO_SPREAD * max(map(abs, values))
