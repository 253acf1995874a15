"""Confident predictions, annotations, and how much of a volume both cover."""

from __future__ import annotations

import numpy as np
import pytest
from background_runner import BackgroundRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.files.volume import Volume
from maag.inference import Segmentation, argmax_labels
from maag.labels import IGNORE
from maag.train.second_stage.coverage import CoverageTally
from maag.train.second_stage.sure_labels import label_volume, normalised_entropy, sure_labels


def confident_segmentation(labels: NDArray[np.uint8], num_classes: int, probability: float = 0.999) -> Segmentation:
    """A segmentation that gives `labels` (Z, Y, X) that probability."""
    probabilities = np.full((len(labels), num_classes, *labels.shape[1:]), (1 - probability) / (num_classes - 1))
    np.put_along_axis(probabilities, labels[:, None].astype(int), probability, axis=1)
    return Segmentation(labels, probabilities.astype(np.float32), {})


def test_entropy_is_normalised_by_its_maximum() -> None:
    probabilities = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]], np.float32)[:, :, None, None]
    np.testing.assert_allclose(normalised_entropy(probabilities).ravel(), [0, 1, 0.5], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_a_higher_entropy_limit_only_adds_argmax_labels(seed: int, low: float, high: float) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.3] * 3, size=(2, 6, 5)).transpose(0, 3, 1, 2).astype(np.float32)
    found = Segmentation(argmax_labels(probabilities), probabilities, {})
    fewer, more = (sure_labels(found, 3, limit) for limit in sorted((low, high)))
    for labels in (fewer, more):
        assert (labels == found.labels)[labels != IGNORE].all()
    assert (more == fewer)[fewer != IGNORE].all()
    unsure = normalised_entropy(probabilities) >= max(low, high)
    assert (more[unsure] == IGNORE).all()


def test_smaller_components_become_unlabelled_and_not_background() -> None:
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[:, 1:4, 1:4] = 1
    labels[1, 6, 6:8] = 1
    labels[0, 6, 0] = 2
    expected = labels.copy()
    expected[1, 6, 6:8] = IGNORE
    np.testing.assert_array_equal(sure_labels(confident_segmentation(labels, 3), 3, 0.1), expected)


def test_uncertain_voxels_still_connect_components() -> None:
    labels = np.zeros((1, 3, 9), np.uint8)
    labels[0, 1, 1:8] = 1
    found = confident_segmentation(labels, 2)
    assert found.probabilities is not None
    found.probabilities[0, :, 1, 4] = (0.4, 0.6)
    expected = labels.copy()
    expected[0, 1, 4] = IGNORE
    np.testing.assert_array_equal(sure_labels(found, 2, 0.1), expected)


def test_annotations_are_kept_and_pixels_outside_the_grid_stay_unlabelled() -> None:
    data = DataConfig(classes=("background", "blob"), unlabelled_value=2, size_px=(16, 16), spacing_mm=1.0)
    volume = Volume(np.random.default_rng(0).normal(size=(1, 2, 20, 24)).astype(np.float32), (5, 1, 1), np.eye(4))
    annotated = np.full(volume.shape, IGNORE, np.uint8)
    annotated[0, 10, 10:14] = 1  # against the model
    annotated[1, 0, 0] = 1  # outside its grid
    expected = np.full(volume.shape, IGNORE, np.uint8)
    expected[:, 2:18, 4:20] = 0
    expected[annotated == 1] = 1
    np.testing.assert_array_equal(label_volume(volume, annotated, BackgroundRunner(2), data, 0.1), expected)
    np.testing.assert_array_equal(
        label_volume(volume, annotated, BackgroundRunner(2, probability=0.7), data, 0.1), annotated
    )


class ForegroundRunner:
    """Predicts class 1 with probability 0.6 and background with 0.4 in every pixel."""

    name = "foreground"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        planes = np.ones((len(images), 1, *images.shape[2:]), np.float32)
        return np.concatenate([0.4 * planes, 0.6 * planes], axis=1)


@pytest.mark.parametrize("spacing_mm", [0.3, 0.5, 0.7, 1.0, 2.3])
def test_pixels_at_the_edge_of_the_grid_take_no_background_from_outside(spacing_mm: float) -> None:
    """Interpolated with the background outside, they would be labelled as background against the model."""
    data = DataConfig(classes=("background", "blob"), unlabelled_value=2, size_px=(16, 16), spacing_mm=1.0)
    volume = Volume(np.zeros((1, 1, 90, 80), np.float32), (5, spacing_mm, spacing_mm), np.eye(4))
    labels = label_volume(volume, np.full(volume.shape, IGNORE, np.uint8), ForegroundRunner(), data, 1.0)
    assert set(np.unique(labels)) == {1, IGNORE}
    rows, columns = (labels[0] == 1).any(axis=1).sum(), (labels[0] == 1).any(axis=0).sum()
    for found in (rows, columns):  # Half a pixel of the grid is lost on each side.
        assert 15 / spacing_mm - 2 <= found <= 16 / spacing_mm


def test_coverage_counts_pixels_and_compares_them_with_available_masks() -> None:
    tally = CoverageTally(3)
    tally.add(np.array([[[1, 1, 1, IGNORE]]], np.uint8), np.array([[[0, 1, 0, 1]]], np.uint8))
    tally.add(np.array([[[1, IGNORE, IGNORE, IGNORE]]], np.uint8), None)
    one, absent = tally.of(1), tally.of(2)
    assert (one.percent, one.correct_percent, one.reached_percent) == (50.0, pytest.approx(100 / 3), 50.0)
    assert (absent.percent, absent.correct_percent, absent.reached_percent) == (0.0, None, None)
    tally.add(np.array([[[1, 1, 1, 2]]], np.uint8), np.array([[[1, 1, 1, 1]]], np.uint8))
    one = tally.of(1)
    assert (one.correct_percent, one.reached_percent) == (pytest.approx(400 / 6), pytest.approx(400 / 6))
