"""Intensity normalisation ignores a constant background and voxels outside the grid."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from maag.config.data import DataConfig
from maag.data.files.volume import Volume
from maag.data.geometry import (
    Grid,
    image_to_grid,
    normalize,
    prepare_image,
)


def test_normalisation_clips_outliers_and_uses_median_and_interquartile_range() -> None:
    voxels = np.random.default_rng(0).normal(50, 9, (4, 20, 20)).astype(np.float32)
    p5, p25, p50, p75, p95 = np.percentile(voxels, [5, 25, 50, 75, 95])
    expected = ((np.clip(voxels, p5, p95) - p50) / (p75 - p25)).astype(np.float32)
    np.testing.assert_array_equal(normalize(voxels), expected)


def test_a_constant_image_becomes_zeros() -> None:
    assert not normalize(np.full((1, 8, 8), 3, np.float32)).any()


@pytest.mark.parametrize("background", [-1024.0, 0.0, 1.0, 1000.3])
def test_a_constant_background_does_not_affect_the_normalisation(background: float) -> None:
    voxels = np.full((2, 60, 60), background, np.float32)
    grid = Grid.plan((60, 60), (0.7, 0.7), 1.0, (48, 48))
    assert not normalize(image_to_grid(voxels, grid)).any()
    voxels[:, 20:35, 20:40] += np.random.default_rng(0).normal(700, 90, (2, 15, 20)).astype(np.float32)
    normalised = normalize(image_to_grid(voxels, grid))
    assert np.ptp(normalised) == pytest.approx(1, abs=1e-3)
    alone = normalize(image_to_grid(voxels - background, grid))
    np.testing.assert_allclose(normalised, alone, atol=1e-3)


def test_normalisation_makes_no_float64_copies() -> None:
    voxels = np.random.default_rng(0).normal(0, 500, (64, 64, 64)).astype(np.float32)
    tracemalloc.start()
    normalize(voxels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * voxels.nbytes


def test_voxels_outside_the_grid_do_not_affect_the_normalisation() -> None:
    data = DataConfig(size_px=(16, 16), spacing_mm=1.0)
    voxels = np.random.default_rng(0).normal(100, 9, (1, 3, 40, 40)).astype(np.float32)
    bright = voxels.copy()
    bright[..., :12, :] = 4000
    images = [prepare_image(Volume(each, (8.0, 1.0, 1.0), np.eye(4)), data)[0] for each in (voxels, bright)]
    np.testing.assert_array_equal(*images)


def test_unit_normalisation_maps_byte_values_to_0_to_1() -> None:
    data = DataConfig(size_px=(16, 16), spacing_mm=1.0, normalization="unit")
    voxels = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16)
    images, _ = prepare_image(Volume(voxels, (1.0, 1.0, 1.0), np.eye(4)), data)
    np.testing.assert_allclose(images, np.linspace(0, 1, 256).reshape(1, 1, 16, 16), atol=1e-6)
