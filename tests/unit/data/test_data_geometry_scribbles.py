"""Thin strokes resampled to a coarser grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maag.data.geometry import (
    Grid,
    labels_to_grid,
    scribbles_to_grid,
)
from maag.labels import IGNORE


@settings(max_examples=30, deadline=None)
@given(st.integers(10, 60), st.sampled_from([3, 5, 6, 7]), st.integers(0, 3))
def test_a_thin_line_survives_on_a_much_coarser_grid(row: int, factor: int, value: int) -> None:
    scribbles = np.full((1, 16 * factor, 16 * factor), 255, np.uint8)
    scribbles[0, row % (16 * factor)] = value
    grid = Grid.plan(scribbles.shape[1:], (1, 1), factor, (16, 16))
    found = scribbles_to_grid(scribbles, grid, 255)
    expected = np.full((1, 16, 16), 255, np.uint8)
    expected[0, row % (16 * factor) // factor] = value
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("length", "kept"), [(1, False), (2, False), (3, True), (5, True)])
def test_an_off_centre_speck_labels_a_coarse_pixel_only_if_long(length: int, kept: bool) -> None:
    scribbles = np.full((1, 80, 80), 255, np.uint8)
    scribbles[0, 10 : 10 + length, 21] = 2  # this many of the pixel's five rows
    found = scribbles_to_grid(scribbles, Grid.plan((80, 80), (1, 1), 5, (16, 16)), 255)
    expected = np.full((1, 16, 16), 255, np.uint8)
    if kept:
        expected[0, 2, 4] = 2
    np.testing.assert_array_equal(found, expected)


def test_a_speck_at_the_centre_of_a_coarse_pixel_labels_it() -> None:
    scribbles = np.full((1, 80, 80), 255, np.uint8)
    scribbles[0, 12, 22] = 2
    found = scribbles_to_grid(scribbles, Grid.plan((80, 80), (1, 1), 5, (16, 16)), 255)
    assert np.argwhere(found == 2).tolist() == [[0, 2, 4]]


def test_a_coarse_pixel_of_two_classes_takes_the_one_at_its_centre_or_none() -> None:
    scribbles = np.full((1, 80, 80), 255, np.uint8)
    scribbles[0, 0:40, 1], scribbles[0, 0:40, 3] = 1, 2  # beside the centre of the first column's pixels
    scribbles[0, 40:, 2], scribbles[0, 40:, 3] = 1, 2  # on it, and beside it
    found = scribbles_to_grid(scribbles, Grid.plan((80, 80), (1, 1), 5, (16, 16)), 255)
    assert (found[0, :8] == 255).all()
    assert (found[0, 8:, 0] == 1).all()


def test_scribbles_on_a_similar_grid_are_resampled_like_masks() -> None:
    scribbles = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (2, 40, 40))
    for spacing in (0.8, 1.0, 1.9):
        grid = Grid.plan((40, 40), (1, 1), spacing, (32, 32))
        np.testing.assert_array_equal(scribbles_to_grid(scribbles, grid, 255), labels_to_grid(scribbles, grid, 255))


def test_scribbles_of_each_slice_are_resampled_independently() -> None:
    grid = Grid((96, 80), (24, 20), (32, 16))
    scribbles = np.random.default_rng(0).choice(
        np.array([0, 1, 2, IGNORE], np.uint8), (40, 96, 80), p=[0.01] * 3 + [0.97]
    )
    each = [scribbles_to_grid(plane[None], grid, IGNORE) for plane in scribbles]
    np.testing.assert_array_equal(scribbles_to_grid(scribbles, grid, IGNORE), np.concatenate(each))
