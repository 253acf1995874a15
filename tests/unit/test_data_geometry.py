from __future__ import annotations

import tracemalloc

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
    normalize,
    plan_grid,
    prepare_image,
    scores_to_source,
    scribbles_to_grid,
)
from maag.errors import DataError
from maag.labels import IGNORE

SIDES = st.integers(3, 60)
SIZES = st.sampled_from([16, 32, 48])
SPACINGS = st.floats(0.6, 3.0)
quick = settings(max_examples=30, deadline=None)


def cubic_weight(distance: float) -> float:
    """Keys' kernel with a = -0.75, as OpenCV has it."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resize_row(row: NDArray[np.float32], length: int) -> NDArray[np.float64]:
    """One row by OpenCV's rule: half-pixel centres, the edge repeated."""
    out = np.zeros(length)
    for place in range(length):
        at = (place + 0.5) * len(row) / length - 0.5
        for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            out[place] += cubic_weight(at - tap) * row[min(max(tap, 0), len(row) - 1)]
    return out


@quick
@given(SIDES, SIDES, SIZES, SIZES, SPACINGS, SPACINGS, st.integers(0, 99))
def test_shapes_are_exact_both_ways(
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


def test_rows_and_columns_of_a_volume_keep_their_own_spacings() -> None:
    volume = Volume(np.zeros((1, 3, 30, 40), np.float32), (8.0, 3.0, 1.5), np.diag([1.5, 3.0, 8.0, 1.0]))
    grid = plan_grid(volume, DataConfig(size_px=(48, 32), spacing_mm=1.5))
    assert grid == Grid((30, 40), (60, 40), (48, 32))


@quick
@given(st.integers(1, 48), st.integers(1, 32), st.integers(0, 99))
def test_without_resizing_and_cropping_the_way_back_is_exact(rows: int, columns: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (3, rows, columns)).astype(np.uint8)
    grid = Grid.plan((rows, columns), (1.5, 1.5), 1.5, (48, 32))
    assert np.array_equal(labels_to_source(labels_to_grid(labels, grid, 0), grid), labels)


@quick
@given(st.integers(60, 90), st.floats(1.0, 2.0), st.floats(1.2, 2.0))
def test_a_blob_survives_resampling_there_and_back(side: int, spacing: float, target: float) -> None:
    rows, columns = np.indices((side, side))
    blob = (np.hypot(rows - side / 2, columns - side / 2) < side / 4).astype(np.uint8)[None]
    grid = Grid.plan((side, side), (spacing, spacing), target, (160, 160))
    back = labels_to_source(labels_to_grid(blob, grid, 0), grid)
    assert 2 * (back & blob).sum() / (back.sum() + blob.sum()) > 0.88


@quick
@given(SIDES, SIDES, SIZES, SPACINGS, st.integers(0, 99))
def test_scores_come_back_as_probabilities(rows: int, columns: int, size: int, spacing: float, seed: int) -> None:
    scores = np.random.default_rng(seed).dirichlet(np.ones(3), (2, size, size)).transpose(0, 3, 1, 2)
    grid = Grid.plan((rows, columns), (spacing, spacing), 1.5, (size, size))
    back = scores_to_source(scores.astype(np.float32), grid)
    assert back.shape == (2, 3, rows, columns)
    np.testing.assert_allclose(back.sum(axis=1), 1, atol=1e-5)


def test_what_was_cropped_comes_back_as_background() -> None:
    grid = Grid.plan((40, 16), (1.0, 1.0), 1.0, (16, 16))
    scores = np.zeros((1, 2, 16, 16), np.float32)
    scores[:, 1] = 1
    back = scores_to_source(scores, grid)[0].argmax(axis=0)
    assert not back[:12].any()
    assert back[12:28].all()
    assert not back[28:].any()


def test_odd_differences_are_split_alike_in_padding_and_cropping() -> None:
    row = np.arange(1, 20, dtype=np.uint8).reshape(1, 1, 19)
    cropped = labels_to_grid(np.repeat(row, 16, axis=1), Grid((16, 19), (16, 19), (16, 16)), 0)
    assert cropped[0, 0].tolist() == list(range(2, 18))
    padded = labels_to_grid(np.full((1, 16, 13), 7, np.uint8), Grid((16, 13), (16, 13), (16, 16)), 9)
    assert padded[0, 0].tolist() == [9] + [7] * 13 + [9, 9]


def test_images_are_padded_with_their_edge() -> None:
    image = np.arange(16, dtype=np.float32)[None, :, None] * np.ones((1, 16, 12), np.float32)
    image[0, :, 0], image[0, :, -1] = -5, 5
    padded = image_to_grid(image, Grid((16, 12), (16, 12), (16, 16)))
    assert (padded[0, :, :3] == -5).all()
    assert (padded[0, :, 13:] == 5).all()


@pytest.mark.parametrize("length", [7, 12, 31])
def test_images_are_resized_as_opencv_does_cubic(length: int) -> None:
    row = np.random.default_rng(0).normal(size=17).astype(np.float32)
    image = np.repeat(row[None, None], 16, axis=1)
    resized = image_to_grid(image, Grid((16, 17), (16, length), (16, 32)))
    before = (32 - length) // 2
    np.testing.assert_allclose(resized[0, 0, before : before + length], resize_row(row, length), atol=1e-5)


@pytest.mark.parametrize("length", [7, 12, 31])
def test_labels_are_taken_from_the_pixel_that_holds_the_centre(length: int) -> None:
    row = np.arange(17, dtype=np.uint8)
    resized = labels_to_grid(np.repeat(row[None, None], 16, axis=1), Grid((16, 17), (16, length), (16, 32)), 99)
    before = (32 - length) // 2
    expected = [int(np.floor((place + 0.5) * 17 / length)) for place in range(length)]
    assert resized[0, 0, before : before + length].tolist() == expected


@pytest.mark.parametrize("spacing", [0.8, 1.2, 1.4, 1.6, 2.3])
def test_labels_lie_where_the_image_does_and_come_back_there(spacing: float) -> None:
    """On the mean: a single disc may lie up to half a pixel off, for a pixel is taken or left."""
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
    """Of mass, of the first slice: row and column."""
    weights = planes[0].astype(float)
    indices = np.indices(weights.shape)
    centre: NDArray[np.float64] = (indices * weights).sum(axis=(1, 2)) / weights.sum()
    return centre


def test_spacings_of_32_bits_lose_no_pixel() -> None:
    for hundredths in range(30, 301, 5):
        in_header = float(np.float32(hundredths / 100))
        grid = Grid.plan((512, 224), (in_header, in_header), hundredths / 100, (512, 512))
        assert grid.resized_shape == (512, 224)


@quick
@given(st.integers(10, 60), st.sampled_from([5, 6, 7]), st.integers(0, 3))
def test_a_thin_line_is_still_there_on_a_grid_that_is_much_coarser(place: int, factor: int, value: int) -> None:
    scribbles = np.full((1, 16 * factor, 16 * factor), 255, np.uint8)
    scribbles[0, place % (16 * factor)] = value
    grid = Grid.plan(scribbles.shape[1:], (1, 1), factor, (16, 16))
    found = scribbles_to_grid(scribbles, grid, 255)
    expected = np.full((1, 16, 16), 255, np.uint8)
    expected[0, place % (16 * factor) // factor] = value
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("length", "taken"), [(1, False), (2, False), (3, True), (5, True)])
def test_a_speck_beside_the_centre_of_a_coarse_pixel_is_no_stroke_through_it(length: int, taken: bool) -> None:
    scribbles = np.full((1, 80, 80), 255, np.uint8)
    scribbles[0, 10 : 10 + length, 21] = 2  # as much of the pixel's five rows
    found = scribbles_to_grid(scribbles, Grid.plan((80, 80), (1, 1), 5, (16, 16)), 255)
    expected = np.full((1, 16, 16), 255, np.uint8)
    if taken:
        expected[0, 2, 4] = 2
    np.testing.assert_array_equal(found, expected)


def test_a_speck_at_the_centre_of_a_coarse_pixel_stays_however_small() -> None:
    scribbles = np.full((1, 80, 80), 255, np.uint8)
    scribbles[0, 12, 22] = 2
    found = scribbles_to_grid(scribbles, Grid.plan((80, 80), (1, 1), 5, (16, 16)), 255)
    assert np.argwhere(found == 2).tolist() == [[0, 2, 4]]


def test_a_pixel_through_which_two_classes_run_has_the_one_at_its_centre_or_none() -> None:
    scribbles = np.full((1, 80, 80), 255, np.uint8)
    scribbles[0, 0:40, 1], scribbles[0, 0:40, 3] = 1, 2  # beside the centre of the first column's pixels
    scribbles[0, 40:, 2], scribbles[0, 40:, 3] = 1, 2  # on it, and beside it
    found = scribbles_to_grid(scribbles, Grid.plan((80, 80), (1, 1), 5, (16, 16)), 255)
    assert (found[0, :8] == 255).all()
    assert (found[0, 8:, 0] == 1).all()


def test_scribbles_on_a_grid_like_their_own_are_laid_as_masks_are() -> None:
    scribbles = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (2, 40, 40))
    for spacing in (0.8, 1.0, 1.9):
        grid = Grid.plan((40, 40), (1, 1), spacing, (32, 32))
        np.testing.assert_array_equal(scribbles_to_grid(scribbles, grid, 255), labels_to_grid(scribbles, grid, 255))


def test_normalisation_is_robust() -> None:
    voxels = np.random.default_rng(0).normal(50, 9, (4, 20, 20)).astype(np.float32)
    p5, p25, p50, p75, p95 = np.percentile(voxels, [5, 25, 50, 75, 95])
    expected = (np.clip(voxels, p5, p95) - p50) / (p75 - p25)
    np.testing.assert_allclose(normalize(voxels), expected, rtol=1e-4, atol=1e-5)


def test_a_constant_image_becomes_zeros() -> None:
    assert not normalize(np.full((1, 8, 8), 3, np.float32)).any()


@pytest.mark.parametrize("ground", [-1024.0, 0.0, 1.0, 1000.3])
def test_an_organ_on_a_constant_ground_is_normalised_alike_whatever_the_ground(ground: float) -> None:
    voxels = np.full((2, 60, 60), ground, np.float32)
    grid = Grid.plan((60, 60), (0.7, 0.7), 1.0, (48, 48))
    assert not normalize(image_to_grid(voxels, grid)).any()
    voxels[:, 20:35, 20:40] += np.random.default_rng(0).normal(700, 90, (2, 15, 20)).astype(np.float32)
    normalised = normalize(image_to_grid(voxels, grid))
    assert np.ptp(normalised) == pytest.approx(1, abs=1e-3)
    alone = normalize(image_to_grid(voxels - ground, grid))
    np.testing.assert_allclose(normalised, alone, atol=1e-3)


def test_a_volume_is_normalised_without_copies_of_64_bits() -> None:
    voxels = np.random.default_rng(0).normal(0, 500, (64, 64, 64)).astype(np.float32)
    p5, p25, median, p75, p95 = np.percentile(voxels, (5, 25, 50, 75, 95))
    expected = ((np.clip(voxels, p5, p95) - median) / (p75 - p25)).astype(np.float32)
    tracemalloc.start()
    found = normalize(voxels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, expected)
    assert peak < 2.5 * voxels.nbytes


def test_strokes_of_many_slices_are_those_of_each() -> None:
    grid = Grid((96, 80), (24, 20), (32, 16))
    scribbles = np.random.default_rng(0).choice(
        np.array([0, 1, 2, IGNORE], np.uint8), (40, 96, 80), p=[0.01] * 3 + [0.97]
    )
    each = [scribbles_to_grid(plane[None], grid, IGNORE) for plane in scribbles]
    np.testing.assert_array_equal(scribbles_to_grid(scribbles, grid, IGNORE), np.concatenate(each))


def test_what_lies_beside_the_grid_has_no_say_in_the_normalisation() -> None:
    data = DataConfig(size_px=(16, 16), spacing_mm=1.0)
    voxels = np.random.default_rng(0).normal(100, 9, (1, 3, 40, 40)).astype(np.float32)
    bright = voxels.copy()
    bright[..., :12, :] = 4000
    images = [prepare_image(Volume(each, (8.0, 1.0, 1.0), np.eye(4)), data)[0] for each in (voxels, bright)]
    np.testing.assert_array_equal(*images)


def test_values_of_bytes_lie_between_0_and_1_whatever_else_is_in_the_image() -> None:
    data = DataConfig(size_px=(16, 16), spacing_mm=1.0, normalization="unit")
    voxels = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16)
    images, _ = prepare_image(Volume(voxels, (1.0, 1.0, 1.0), np.eye(4)), data)
    np.testing.assert_allclose(images, np.linspace(0, 1, 256).reshape(1, 1, 16, 16), atol=1e-6)


def test_an_image_of_other_channels_than_the_settings_is_refused() -> None:
    volume = Volume(np.zeros((3, 1, 8, 8), np.float32), (1.0, 1.0, 1.0), np.eye(4))
    with pytest.raises(DataError, match=r"the image has 3 channels, data\.channels says 1; correct one of them"):
        plan_grid(volume, DataConfig(size_px=(16, 16), spacing_mm=1.0))
