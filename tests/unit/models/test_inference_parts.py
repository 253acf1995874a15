"""Largest components of labels, and runner outputs that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from threshold_runner import ThresholdRunner

from maag.config.data import DataConfig
from maag.data.files.volume import Volume
from maag.errors import DataError
from maag.inference import Refinement, largest_components, segment, segment_fully

Images = NDArray[np.float32]
DATA = DataConfig(classes=("background", "blob"), size_px=(48, 32), spacing_mm=1.5)


def noise(shape: tuple[int, int, int]) -> Volume:
    voxels = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    return Volume(voxels[None], (8.0, 1.5, 1.5), np.diag([1.5, 1.5, 8.0, 1.0]))


def test_the_last_class_keeps_the_first_of_its_equally_large_components() -> None:
    labels = np.zeros((1, 4, 9), np.uint8)
    labels[0, 0, :2] = labels[0, 3, 3:5] = labels[0, 0, 8] = 2
    expected = np.zeros_like(labels)
    expected[0, 0, :2] = 2
    np.testing.assert_array_equal(largest_components(labels, 3), expected)


def test_largest_component_filters_labels_but_not_probabilities() -> None:
    class TwoParts:
        name = "two parts"

        def __call__(self, images: Images) -> Images:
            blob = np.zeros_like(images[:, 0])
            blob[:, 4:20, 4:20] = blob[:, 40:44, 20:24] = 1
            return np.stack([1 - blob, blob], axis=1)

    volume = noise((2, 48, 32))
    found = segment_fully(volume, TwoParts(), DATA, Refinement(largest_component=True), keep_probabilities=True)
    assert found.probabilities is not None
    assert found.labels.sum() == 2 * 16 * 16
    assert found.probabilities[:, 1].sum() == 2 * (16 * 16 + 4 * 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_single_non_finite_probability_is_refused(value: float) -> None:
    class BrokenLater(ThresholdRunner):
        def __call__(self, images: Images) -> Images:
            probabilities = super().__call__(images)
            if self.calls > 1:
                probabilities[0, 1, 5, 5] = value
            return probabilities

    volume = noise((40, 48, 32))
    with pytest.raises(DataError, match="slice 32"):
        segment(volume, BrokenLater(), DATA)
