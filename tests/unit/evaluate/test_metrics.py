"""Scores against an implementation that shares no code with ours or with the library behind it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from maag.errors import DataError
from maag.labels import IGNORE
from maag.metrics import ClassScores, score_case, score_class, surface_distances

Mask = NDArray[np.bool_]
SPACINGS = st.tuples(*[st.floats(0.5, 10.0)] * 3)


def brute_surface(mask: Mask) -> NDArray[np.float64]:
    """Indices of voxels with a face neighbour outside; by shifting a padded copy."""
    padded = np.pad(mask, 1)
    interior = padded.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            interior &= np.roll(padded, step, axis)
    return np.argwhere(padded & ~interior).astype(np.float64)


def brute_distances(first: Mask, second: Mask, spacing: tuple[float, ...]) -> tuple[float, float, float]:
    table = cdist(brute_surface(first) * spacing, brute_surface(second) * spacing)
    forward, backward = table.min(axis=1), table.min(axis=0)
    return (
        max(forward.max(), backward.max()),
        max(np.quantile(forward, 0.95), np.quantile(backward, 0.95)),
        (forward.sum() + backward.sum()) / (len(forward) + len(backward)),
    )


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Mask, Mask]:
    """Two non-empty masks: ellipsoids with some speckle, which may touch the border or lie apart."""
    shape = draw(st.tuples(st.integers(2, 6), st.integers(6, 14), st.integers(6, 14)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"))
    masks = []
    for _ in range(2):
        centre = [random.uniform(0, size - 1) for size in shape]
        radii = [random.uniform(1, size / 2) for size in shape]
        distance = sum(((grid[axis] - centre[axis]) / radii[axis]) ** 2 for axis in range(3))
        mask = (distance <= 1) ^ (random.random(shape) < draw(st.sampled_from([0.0, 0.02])))
        mask[tuple(round(value) for value in centre)] = True
        masks.append(mask)
    return masks[0], masks[1]


@settings(max_examples=25, deadline=None)
@given(shapes(), SPACINGS)
def test_scores_agree_with_brute_force(masks: tuple[Mask, Mask], spacing: tuple[float, float, float]) -> None:
    predicted, real = masks
    scores = score_class(predicted, real, spacing)
    assert (scores.hd_mm, scores.hd95_mm, scores.assd_mm) == pytest.approx(
        brute_distances(predicted, real, spacing), rel=1e-5, abs=1e-5
    )
    both, either = np.logical_and(predicted, real).sum(), np.logical_or(predicted, real).sum()
    assert scores.iou == pytest.approx(both / either)
    assert scores.dice == pytest.approx(2 * both / (predicted.sum() + real.sum()))


@settings(max_examples=15, deadline=None)
@given(shapes(), SPACINGS)
def test_surface_distances_are_symmetric_and_zero_for_equal_masks(
    masks: tuple[Mask, Mask], spacing: tuple[float, float, float]
) -> None:
    first, second = masks
    forward, backward = surface_distances(first, second, spacing), surface_distances(second, first, spacing)
    assert (forward.hd_mm, forward.hd95_mm) == (backward.hd_mm, backward.hd95_mm)
    assert forward.assd_mm == pytest.approx(backward.assd_mm)
    assert score_class(first, first, spacing) == ClassScores(
        presence="both", dice=1.0, iou=1.0, hd_mm=0.0, hd95_mm=0.0, assd_mm=0.0
    )


def test_scores_of_two_bars_match_a_hand_calculation() -> None:
    # Along x (2 mm): P covers 1..3, R covers 2..5. P->R: 2 0 0; R->P: 0 0 2 4.
    predicted, real = np.zeros((1, 3, 8), bool), np.zeros((1, 3, 8), bool)
    predicted[0, 1, 1:4] = True
    real[0, 1, 2:6] = True
    scores = score_class(predicted, real, (8.0, 1.0, 2.0))
    assert scores.dice == pytest.approx(4 / 7)
    assert scores.iou == pytest.approx(2 / 5)
    assert scores.hd_mm == pytest.approx(4.0)
    assert scores.hd95_mm == pytest.approx(2 + 0.85 * 2)  # 95 % of 3 steps: 2.85 between 2 and 4
    assert scores.assd_mm == pytest.approx(8 / 7)


def test_single_slice_is_measured_in_plane() -> None:
    real, predicted = np.zeros((1, 9, 9), bool), np.zeros((1, 9, 9), bool)
    real[0, 1:8, 1:8] = True
    predicted[0, 3:6, 3:6] = True
    # Were the slice axis counted, every voxel of the inner square would be on the outer one's surface.
    found = surface_distances(predicted, real, (10.0, 1.0, 1.0))
    assert found.hd_mm == pytest.approx(math.sqrt(8))
    assert (found.hd_mm, found.hd95_mm, found.assd_mm) == pytest.approx(
        brute_distances(predicted[0], real[0], (1.0, 1.0))
    )


def test_absent_classes_score_zero_or_undefined() -> None:
    reference, prediction = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    reference[0, 0, 0] = 1
    prediction[0, 0, 0] = 2
    scores = score_case(prediction, reference, (1.0, 1.0, 1.0), ["background", "a", "b", "c"])
    assert scores == {
        "a": ClassScores(presence="missed", dice=0.0, iou=0.0),
        "b": ClassScores(presence="invented", dice=0.0, iou=0.0),
        "c": ClassScores(presence="absent_in_both"),
    }


def test_ignored_voxels_do_not_affect_scores() -> None:
    reference, prediction = np.zeros((2, 6, 6), np.uint8), np.zeros((2, 6, 6), np.uint8)
    reference[:, 1:3, 1:3] = 1
    prediction[:, 1:3, 1:3] = 1
    prediction[:, 4:, 4:] = 1
    reference[:, 3:, 3:] = IGNORE
    scores = score_case(prediction, reference, (5.0, 1.0, 1.0), ["background", "a"])["a"]
    assert (scores.dice, scores.hd_mm) == (1.0, 0.0)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(2, 4, 4\).*\(2, 4, 5\)"):
        score_case(np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 5), np.uint8), (1.0, 1.0, 1.0), ["background", "a"])
