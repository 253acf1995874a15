"""Resampling of images, labels and scores to the training grid and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.files.volume import Volume
from maag.data.geometry import (
    Grid,
    image_to_grid,
    labels_to_grid,
    labels_to_source,
    plan_grid,
    scores_to_source,
)
from maag.errors import DataError

SIDES = st.integers(3, 60)
SIZES = st.sampled_from([16, 32, 48])
SPACINGS = st.floats(0.6, 3.0)
quick = settings(max_examples=30, deadline=None)


def cubic_weight(distance: float) -> float:
    """Keys' kernel with a = -0.75, as in OpenCV."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resize_row(row: NDArray[np.float32], length: int) -> NDArray[np.float64]:
    """One row by OpenCV's rule: half-pixel centres, the edge repeated."""
    out = np.zeros(length)
    for index in range(length):
        position = (index + 0.5) * len(row) / length - 0.5
        for tap in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            out[index] += cubic_weight(position - tap) * row[min(max(tap, 0), len(row) - 1)]
    return out


@quick
@given(SIDES, SIDES, SIZES, SIZES, SPACINGS, SPACINGS, st.integers(0, 99))
def test_resampling_gives_exact_shapes_in_both_directions(
    rows: int, columns: int, height: int, width: int, row_mm: float, column_mm: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (2, rows, columns)).astype(np.uint8)
    grid = Grid.plan((rows, columns), (row_mm, column_mm), 1.5, (height, width))
    assert grid.resized_shape == (
        max(1, int(rows * row_mm / 1.5 + 1e-4)),
        max(1, int(columns * column_mm / 1.5 + 1e-4)),
    )
    on_grid = labels_to_grid(labels, grid, 255)
    assert on_grid.shape == (2, height, width)
    assert image_to_grid(labels.astype(np.float32), grid).shape == (2, height, width)
    assert labels_to_source(on_grid, grid).shape == labels.shape


def test_rows_and_columns_are_resampled_by_their_own_spacings() -> None:
    volume = Volume(np.zeros((1, 3, 30, 40), np.float32), (8.0, 3.0, 1.5), np.diag([1.5, 3.0, 8.0, 1.0]))
    grid = plan_grid(volume, DataConfig(size_px=(48, 32), spacing_mm=1.5))
    assert grid == Grid((30, 40), (60, 40), (48, 32))


@quick
@given(st.integers(1, 48), st.integers(1, 32), st.integers(0, 99))
def test_padding_alone_is_inverted_exactly(rows: int, columns: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (3, rows, columns)).astype(np.uint8)
    grid = Grid.plan((rows, columns), (1.5, 1.5), 1.5, (48, 32))
    assert np.array_equal(labels_to_source(labels_to_grid(labels, grid, 0), grid), labels)


@quick
@given(st.integers(60, 90), st.floats(1.0, 2.0), st.floats(1.2, 2.0))
def test_a_blob_survives_resampling_to_the_grid_and_back(side: int, spacing: float, target: float) -> None:
    rows, columns = np.indices((side, side))
    blob = (np.hypot(rows - side / 2, columns - side / 2) < side / 4).astype(np.uint8)[None]
    grid = Grid.plan((side, side), (spacing, spacing), target, (160, 160))
    back = labels_to_source(labels_to_grid(blob, grid, 0), grid)
    assert 2 * (back & blob).sum() / (back.sum() + blob.sum()) > 0.88


@quick
@given(SIDES, SIDES, SIZES, SPACINGS, st.integers(0, 99))
def test_scores_mapped_back_to_the_source_sum_to_one(
    rows: int, columns: int, size: int, spacing: float, seed: int
) -> None:
    scores = np.random.default_rng(seed).dirichlet(np.ones(3), (2, size, size)).transpose(0, 3, 1, 2)
    grid = Grid.plan((rows, columns), (spacing, spacing), 1.5, (size, size))
    back = scores_to_source(scores.astype(np.float32), grid)
    assert back.shape == (2, 3, rows, columns)
    np.testing.assert_allclose(back.sum(axis=1), 1, atol=1e-5)


def test_cropped_regions_are_restored_as_background() -> None:
    grid = Grid.plan((40, 16), (1.0, 1.0), 1.0, (16, 16))
    scores = np.zeros((1, 2, 16, 16), np.float32)
    scores[:, 1] = 1
    back = scores_to_source(scores, grid)[0].argmax(axis=0)
    assert not back[:12].any()
    assert back[12:28].all()
    assert not back[28:].any()


def test_padding_and_cropping_split_odd_differences_alike() -> None:
    row = np.arange(1, 20, dtype=np.uint8).reshape(1, 1, 19)
    cropped = labels_to_grid(np.repeat(row, 16, axis=1), Grid((16, 19), (16, 19), (16, 16)), 0)
    assert cropped[0, 0].tolist() == list(range(2, 18))
    padded = labels_to_grid(np.full((1, 16, 13), 7, np.uint8), Grid((16, 13), (16, 13), (16, 16)), 9)
    assert padded[0, 0].tolist() == [9] + [7] * 13 + [9, 9]


def test_images_are_padded_with_their_edge_values() -> None:
    image = np.arange(16, dtype=np.float32)[None, :, None] * np.ones((1, 16, 12), np.float32)
    image[0, :, 0], image[0, :, -1] = -5, 5
    padded = image_to_grid(image, Grid((16, 12), (16, 12), (16, 16)))
    assert (padded[0, :, :3] == -5).all()
    assert (padded[0, :, 13:] == 5).all()


@pytest.mark.parametrize("length", [7, 12, 31])
def test_images_are_resized_like_opencvs_cubic_interpolation(length: int) -> None:
    row = np.random.default_rng(0).normal(size=17).astype(np.float32)
    image = np.repeat(row[None, None], 16, axis=1)
    resized = image_to_grid(image, Grid((16, 17), (16, length), (16, 32)))
    before = (32 - length) // 2
    np.testing.assert_allclose(resized[0, 0, before : before + length], resize_row(row, length), atol=1e-5)


@pytest.mark.parametrize("length", [7, 12, 31])
def test_resized_labels_come_from_the_pixel_containing_the_centre(length: int) -> None:
    row = np.arange(17, dtype=np.uint8)
    resized = labels_to_grid(np.repeat(row[None, None], 16, axis=1), Grid((16, 17), (16, length), (16, 32)), 99)
    before = (32 - length) // 2
    expected = [int(np.floor((index + 0.5) * 17 / length)) for index in range(length)]
    assert resized[0, 0, before : before + length].tolist() == expected


@pytest.mark.parametrize("spacing", [0.8, 1.2, 1.4, 1.6, 2.3])
def test_resampling_does_not_shift_labels_against_their_image(spacing: float) -> None:
    """On average: nearest sampling may shift a single disc by up to half a pixel."""
    on_grid_px, back_px = [], []
    for side in range(60, 100):
        rows, columns = np.indices((side, side))
        disc = (np.hypot(rows - side / 2, columns - side / 2.1) < side / 4).astype(np.uint8)[None]
        grid = Grid.plan((side, side), (spacing, spacing), 1.5, (160, 160))
        labels = labels_to_grid(disc, grid, 0)
        on_grid_px.append(centre_of(labels) - centre_of(image_to_grid(disc.astype(np.float32), grid)))
        scores = np.stack([labels == 0, labels == 1], axis=1).astype(np.float32)
        back_px.append(centre_of(scores_to_source(scores, grid).argmax(axis=1)) - centre_of(disc))
    np.testing.assert_allclose(np.mean(on_grid_px, axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.mean(back_px, axis=0), 0, atol=0.1)


def centre_of(planes: NDArray[np.generic]) -> NDArray[np.float64]:
    """Centre of mass of the first slice (row, column)."""
    weights = planes[0].astype(float)
    indices = np.indices(weights.shape)
    centre: NDArray[np.float64] = (indices * weights).sum(axis=(1, 2)) / weights.sum()
    return centre


def test_float32_spacings_lose_no_pixel() -> None:
    for hundredths in range(30, 301, 5):
        in_header = float(np.float32(hundredths / 100))
        grid = Grid.plan((512, 224), (in_header, in_header), hundredths / 100, (512, 512))
        assert grid.resized_shape == (512, 224)


def test_an_image_with_an_unexpected_number_of_channels_is_refused() -> None:
    volume = Volume(np.zeros((3, 1, 8, 8), np.float32), (1.0, 1.0, 1.0), np.eye(4))
    with pytest.raises(DataError, match=r"the image has 3 channels, data\.channels is 1; correct one of them"):
        plan_grid(volume, DataConfig(size_px=(16, 16), spacing_mm=1.0))


def test_a_slice_narrower_than_a_training_pixel_keeps_one_pixel() -> None:
    grid = Grid.plan((1, 30), (0.5, 1.0), 1.5, (16, 16))
    assert grid.resized_shape == (1, 20)
    assert labels_to_source(np.ones((2, 16, 16), np.uint8), grid).shape == (2, 1, 30)


def test_labels_mapped_back_come_from_the_pixel_containing_the_centre() -> None:
    grid = Grid.plan((8, 8), (4.5, 4.5), 1.5, (24, 24))
    labels = np.zeros((1, 24, 24), np.uint8)
    labels[:, 1::3, 1::3] = 1  # the middle one of the nine training pixels of each source pixel
    np.testing.assert_array_equal(labels_to_source(labels, grid), np.ones((1, 8, 8), np.uint8))


@pytest.mark.parametrize(("depth", "accepted"), [(4096, True), (4097, False)])
def test_the_pixel_limit_counts_all_slices(depth: int, accepted: bool) -> None:
    voxels = np.broadcast_to(np.float32(0), (1, depth, 512, 512))  # takes no memory
    volume, data = Volume(voxels, (1, 1, 1), np.eye(4)), DataConfig(channels=1, spacing_mm=1.0)
    if accepted:
        assert plan_grid(volume, data).resized_shape == (512, 512)
        return
    with pytest.raises(DataError, match="512 x 512"):
        plan_grid(volume, data)
