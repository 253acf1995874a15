"""The limits of each precision, and what parity detects wherever it happens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.artifact.engine import Precision
from deploy.runners.parity import compare
from maag.errors import ExportError

Images = NDArray[np.float32]
SIDE = 200
BLANK = np.zeros((1, 1, SIDE, SIDE), np.float32)


class Fixed:
    """Two classes with the given foreground probability for each pixel, whatever the images."""

    def __init__(self, name: str, foreground: NDArray[np.float64]) -> None:
        self.name = name
        self._probabilities = np.stack([1 - foreground, foreground])[None].astype(np.float32)

    def __call__(self, images: Images) -> Images:
        return np.repeat(self._probabilities, len(images), axis=0)


class WithExtras(Fixed):
    """Gives labels and a gate as well."""

    def __init__(self, name: str, foreground: NDArray[np.float64], labels: NDArray[np.uint8], gate: Images) -> None:
        super().__init__(name, foreground)
        self._labels, self._gate = labels, gate

    def outputs(self, images: Images) -> dict[str, NDArray[Any]]:
        return {"probabilities": self(images), "labels": self._labels[None], "gates_0": self._gate}


def foreground(count: int, value: float, elsewhere: float = 0.01) -> NDArray[np.float64]:
    plane = np.full((SIDE, SIDE), elsewhere)
    plane.ravel()[:count] = value
    return plane


def agree(reference: Fixed, candidate: Fixed, inputs: str, precision: Precision = "fp32") -> bool:
    try:
        compare(reference, candidate, {inputs: BLANK}, precision)
    except ExportError:
        return False
    return True


@pytest.mark.parametrize(("precision", "within", "beyond"), [("fp32", 9e-4, 1.1e-3), ("fp16", 0.09, 0.11)])
def test_each_precision_limits_the_probability_difference(precision: Precision, within: float, beyond: float) -> None:
    one = Fixed("one", foreground(0, 0, 0.3))
    assert agree(one, Fixed("two", foreground(0, 0, 0.3 + within)), "validation", precision)
    assert not agree(one, Fixed("two", foreground(0, 0, 0.3 + beyond)), "validation", precision)


@pytest.mark.parametrize(
    ("precision", "pixels", "within", "beyond"),
    [
        # Of 40 000 pixels: the first of each precision is limited by agreement, the second by Dice.
        ("fp32", 8000, 3, 5),
        ("fp32", 1200, 1, 3),
        ("fp16", 20000, 38, 42),
        ("fp16", 1000, 15, 25),
        ("int8", 20000, 790, 810),
        ("int8", 2000, 150, 250),
    ],
)
def test_each_precision_limits_the_number_of_changed_labels(
    precision: Precision, pixels: int, within: int, beyond: int
) -> None:
    for count, expected in ((within, True), (beyond, False)):
        moved = foreground(pixels, 0.5003)
        moved.ravel()[:count] = 0.4997
        found = agree(Fixed("one", foreground(pixels, 0.5003)), Fixed("two", moved), "validation", precision)
        assert found is expected


def test_a_reference_with_nan_is_refused() -> None:
    broken = Fixed("one", foreground(1, np.nan))
    assert not agree(broken, Fixed("two", foreground(0, 0)), "phantoms")


def test_a_class_counts_where_only_the_reference_is_confident() -> None:
    assert not agree(Fixed("one", foreground(60, 0.95)), Fixed("two", foreground(60, 0.4)), "blobs", "int8")


@pytest.mark.parametrize(("apart", "agrees"), [(4e-4, True), (1e-2, False)])
def test_either_label_is_accepted_where_probabilities_tie_in_half_precision(apart: float, agrees: bool) -> None:
    plane = foreground(0, 0, 0.5 - apart / 2)
    labels = np.ones((SIDE, SIDE), np.uint8)  # the class that is smaller by `apart`
    gate = np.full((1, 1, SIDE, SIDE), 0.5, np.float32)
    assert agree(Fixed("one", plane), WithExtras("two", plane, labels, gate), "validation") is agrees


def test_a_gate_of_another_shape_is_refused() -> None:
    plane, labels = foreground(0, 0), np.zeros((SIDE, SIDE), np.uint8)
    whole, single = np.full((1, 1, SIDE, SIDE), 0.5, np.float32), np.full((1, 1, 1, 1), 0.5, np.float32)
    one = WithExtras("one", plane, labels, whole)
    assert agree(one, WithExtras("two", plane, labels, whole), "validation")
    assert not agree(one, WithExtras("two", plane, labels, single), "validation")


def test_labels_wrong_only_on_the_last_inputs_are_refused() -> None:
    class WrongOnBright(WithExtras):
        def outputs(self, images: Images) -> dict[str, NDArray[Any]]:
            found = super().outputs(images)
            return {**found, "labels": found["labels"] + np.uint8(images.max() > 0)}

    plane, labels = foreground(0, 0), np.zeros((SIDE, SIDE), np.uint8)
    gate = np.full((1, 1, SIDE, SIDE), 0.5, np.float32)
    one, two = Fixed("one", plane), WrongOnBright("two", plane, labels, gate)
    compare(one, two, {"dark": BLANK})
    with pytest.raises(ExportError, match="bright"):
        compare(one, two, {"dark": BLANK, "bright": BLANK + 1})
