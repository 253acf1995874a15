"""The Dice that a model expects of its labels, and its correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from maag.expected_dice import ExpectedDice, corrected, shortfall

CLASSES = ("background", "RV", "LV")
FRACTIONS = st.floats(0, 1)


def probabilities_of(seed: int, slices: int = 4) -> NDArray[np.float32]:
    logits = np.random.default_rng(seed).normal(0, 2, (slices, len(CLASSES), 24, 24))
    exponents = np.exp(logits)
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)


def expected_of(*parts: NDArray[np.float32]) -> dict[str, float]:
    found = ExpectedDice(len(CLASSES))
    for part in parts:
        found.add(part, part.argmax(axis=1).astype(np.uint8))
    return found.by_class(CLASSES)


def test_expected_dice_of_two_pixels_matches_a_hand_calculation() -> None:
    # RV is labelled where it has .8, and has .1 of the other pixel: 2 * .8 / (.9 + 1).
    pixels = np.array([[0.2, 0.7], [0.8, 0.1], [0.0, 0.2]], np.float32).reshape(1, 3, 1, 2)
    assert expected_of(pixels) == {"RV": pytest.approx(1.6 / 1.9)}


def test_expected_dice_of_certain_labels_is_one() -> None:
    certain = np.eye(3, dtype=np.float32)[np.array([[[0, 1], [2, 1]]])].transpose(0, 3, 1, 2)
    assert expected_of(certain) == {"RV": 1.0, "LV": 1.0}


def test_expected_dice_does_not_depend_on_batching() -> None:
    whole = probabilities_of(0)
    assert expected_of(whole[:1], whole[1:]) == pytest.approx(expected_of(whole))


def test_expected_dice_of_calibrated_probabilities_is_the_real_dice() -> None:
    """Masks sampled from the probabilities have, on average, the expected Dice."""
    probabilities = probabilities_of(1, slices=40)
    uniform = np.random.default_rng(2).random((40, 1, 24, 24))
    mask = (probabilities.cumsum(axis=1) < uniform).sum(axis=1)
    labels = probabilities.argmax(axis=1)
    for value, expected in enumerate(expected_of(probabilities).values(), start=1):
        shared = ((labels == value) & (mask == value)).sum()
        real = 2 * shared / ((labels == value).sum() + (mask == value).sum())
        assert expected == pytest.approx(real, abs=0.01)
        assert 0.5 < real < 0.9


def test_shortfall_is_the_ratio_of_real_to_expected_distance_from_one() -> None:
    assert shortfall([0.9, 0.8, 0.7], [0.95, 0.9, 0.85]) == pytest.approx(2)
    assert shortfall([0.9, 0.8], [0.95, 0.9]) is None
    assert shortfall([0.9, 0.8, 0.7], [1.0, 1.0, 1.0]) is None
    assert shortfall([0.9, 0.8, 0.7], [1.0, 1.0, float(np.nextafter(1.0, 0.0))]) is None
    # One case is certain, the others are not.
    assert shortfall([0.9, 0.8, 0.7], [1.0, 0.9, 0.8]) == pytest.approx(2)


def test_expected_dice_is_corrected_for_each_class() -> None:
    found = corrected({"RV": 0.95, "LV": 0.6, "MYO": 0.9}, {"RV": 2.0, "LV": 3.0})
    assert found == {"RV": pytest.approx(0.9), "LV": 0.0, "MYO": 0.9}


@given(st.lists(st.tuples(FRACTIONS, st.floats(0, 0.99)), min_size=3, max_size=8))
def test_expected_dice_corrected_by_its_own_shortfall_has_the_real_mean(cases: list[tuple[float, float]]) -> None:
    real, expected = zip(*cases, strict=True)
    times = shortfall(real, expected)
    assert times is not None
    uncut = [1 - times * (1 - each) for each in expected]
    assert np.mean(uncut) == pytest.approx(np.mean(real))
    for each, plain in zip(uncut, expected, strict=True):
        assert corrected({"LV": plain}, {"LV": times})["LV"] == pytest.approx(max(0.0, each))
