from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.parity import compare, seeded_inputs
from maag.config.schema import DataConfig
from maag.errors import ExportError

Images = NDArray[np.float32]
DATA = DataConfig(classes=("background", "a"), size_px=(16, 32))


class Logistic:
    """Two classes by a logistic of the intensity, with an error of its own."""

    def __init__(self, name: str, shift: float = 0.0) -> None:
        self.name = name
        self.shift = shift

    def __call__(self, images: Images) -> Images:
        probability = 1 / (1 + np.exp(-images[:, 0])) + np.float32(self.shift)
        return np.stack([1 - probability, probability], axis=1)


def test_inputs_are_fixed_and_of_several_batch_sizes() -> None:
    first, second = seeded_inputs(DATA), seeded_inputs(DATA)
    assert {images.shape for images in first.values()} == {(n, 1, 16, 32) for n in (1, 2, 5)}
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_numbers_are_written_down() -> None:
    rows = compare(Logistic("one"), Logistic("two", 1e-5), {"x": seeded_inputs(DATA)["noise-5"]})
    assert [(row.inputs, row.num_slices, row.reference, row.candidate) for row in rows] == [("x", 5, "one", "two")]
    assert rows[0].max_difference == pytest.approx(1e-5, rel=0.01)
    assert rows[0].label_agreement > 0.9999


def test_a_difference_is_refused_with_its_size() -> None:
    with pytest.raises(ExportError, match=r"two against one on noise-1 .* differ by up to 2\.00e-02 .* labels agree"):
        compare(Logistic("one"), Logistic("two", 0.02), seeded_inputs(DATA))


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ExportError, match="1024 and 0 probabilities are not numbers"):
        compare(Logistic("one"), Logistic("two", float("nan")), seeded_inputs(DATA))


def test_another_shape_is_refused() -> None:
    class Cropping(Logistic):
        def __call__(self, images: Images) -> Images:
            return super().__call__(images)[:, :, 1:]

    with pytest.raises(ExportError, match="shapes"):
        compare(Logistic("one"), Cropping("two"), seeded_inputs(DATA))


def test_a_second_size_is_measured_where_sizes_are_free() -> None:
    shapes = [images.shape for images in seeded_inputs(DATA, dynamic_size=True).values()]
    assert shapes == [(1, 1, 16, 32), (2, 1, 16, 32), (5, 1, 16, 32), (2, 1, 32, 48)]


def test_a_refusal_shows_all_that_was_measured() -> None:
    with pytest.raises(ExportError) as caught:
        compare(Logistic("one"), Logistic("two", 0.02), seeded_inputs(DATA))
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["noise-1", "noise-2", "noise-5"]
    assert all("two differs by 2.0e-02" in line for line in lines[1:])
