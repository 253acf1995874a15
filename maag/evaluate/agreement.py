"""How far volumes, and what follows from them, agree between predictions and masks: bias, limits, correlation."""

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
"""Standard deviations to either side that hold 95 % of normal differences."""
_FEWEST = 3
"""Pairs that a correlation needs: two points lie on a line always."""
_NO_SPREAD = 1e-9
"""Of the largest value: what equal values differ by is their rounding, of which a correlation would be made up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One quantity by the mask and by the prediction."""

    reference: float
    predicted: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Of one quantity over cases or hearts, in its own unit; Bland and Altman, Lancet 1986."""

    n: int
    reference_mean: float
    bias: float
    """Mean of predicted - reference."""
    sd: float | None
    """Standard deviation of these differences, divided by n - 1; None for one pair."""
    lower: float | None
    """Limit of agreement: bias - 1.96 sd."""
    upper: float | None
    mae: float
    """Mean of the absolute differences."""
    correlation: float | None
    """Pearson's; None for fewer than three pairs, or where either does not vary."""

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
    """By foreground class the volumes in ml; what nobody labelled belongs to neither, as in the scores.

    Args:
        prediction: (Z, Y, X) labels.
        reference: likewise, IGNORE where nobody labelled.
        spacing_mm: (z, y, x).
        classes: background first.
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
    """By heart and measure what masks and predictions say.

    Which frames are end-diastole and end-systole is the masks' word for both, so that a frame that is taken for another
    hides no error.

    Args:
        frames: volumes in ml by heart, frame and class.
        classes: of the foreground.

    Returns:
        Hearts with two frames whose masks show a left ventricle, in order of their names, with those measures that both
        have; none where no class is the left ventricle.
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
                name: Pair(reference=there, predicted=here)
                for name in measure_names(names)
                if (there := reference[name]) is not None and (here := measured[name]) is not None
            }
    return found


def agreements(pairs: Mapping[str, Mapping[str, Pair]]) -> dict[str, Agreement]:
    """By quantity the agreement over those cases or hearts that have it; `pairs` are by case or heart."""
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
