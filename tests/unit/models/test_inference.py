"""Inference on whole volumes, with labels on the grid of the source."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maag.config.data import DataConfig
from maag.data.files.volume import Volume
from maag.data.slices.views import View
from maag.errors import DataError
from maag.inference import Refinement, TorchRunner, argmax_labels, largest_components, segment, segment_fully

Images = NDArray[np.float32]


class Output(NamedTuple):
    logits: Tensor
    gate_maps: dict[int, Tensor]


class TinySegmentor(nn.Module):
    """A convolution whose batch normalisation would reveal training mode, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3).eval()

    def forward(self, images: Tensor) -> Output:
        return Output(self.frozen(self.norm(self.convolve(images))), {})


class BrightIsForeground:
    """Class 1 where the normalised image is above the middle of its range."""

    name = "bright"

    def __init__(self, num_classes: int = 2) -> None:
        self.num_classes = num_classes
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, images: Images) -> Images:
        self.batches.append(images.shape)
        bright = (images[:, 0] > (images.min() + images.max()) / 2).astype(np.float32)
        rest = [np.zeros_like(bright)] * (self.num_classes - 2)
        return np.stack([1 - bright, bright, *rest], axis=1)


@pytest.fixture
def data() -> DataConfig:
    return DataConfig(classes=("background", "blob"), size_px=(48, 32), spacing_mm=1.5)


def ellipse_volume(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> tuple[Volume, Images]:
    """A bright ellipse in the middle of noise, and its mask."""
    _, height, width = shape
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows - height / 2) / (height / 4)) ** 2 + ((columns - width / 2) / (width / 4)) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 5, shape)
    voxels = (np.where(mask, 200, 40) + noise).astype(np.float32)
    return Volume(voxels[None], spacing_mm, np.diag([*spacing_mm[::-1], 1.0])), np.broadcast_to(mask, shape)


def test_probabilities_do_not_depend_on_the_batch_size() -> None:
    images = np.random.default_rng(1).normal(size=(5, 1, 16, 16)).astype(np.float32)
    segmentor = TinySegmentor()
    whole, split = TorchRunner(segmentor, batch_size=5)(images), TorchRunner(segmentor, batch_size=2)(images)
    assert whole.shape == (5, 3, 16, 16)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(whole, split, rtol=1e-5)


def test_runner_leaves_modes_and_statistics_as_they_were() -> None:
    segmentor = TinySegmentor()
    before = segmentor.norm.running_mean.clone()
    TorchRunner(segmentor)(np.ones((2, 1, 16, 16), np.float32))
    assert (segmentor.training, segmentor.norm.training, segmentor.frozen.training) == (True, True, False)
    assert torch.equal(segmentor.norm.running_mean, before)
    assert TorchRunner(segmentor).name == "torch-cpu"


def test_labels_are_exact_without_resampling(data: DataConfig) -> None:
    volume, mask = ellipse_volume((3, 48, 32), (8.0, 1.5, 1.5))
    labels = segment(volume, BrightIsForeground(), data)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, mask)


@pytest.mark.parametrize(
    ("shape", "in_plane_mm"), [((2, 61, 33), 1.1), ((2, 37, 90), 1.7), ((1, 20, 21), 1.5), ((2, 130, 99), 0.6)]
)
def test_labels_are_returned_in_the_source_geometry(
    data: DataConfig, shape: tuple[int, int, int], in_plane_mm: float
) -> None:
    volume, mask = ellipse_volume(shape, (8.0, in_plane_mm, in_plane_mm))
    labels = segment(volume, BrightIsForeground(), data)
    assert labels.shape == shape
    wanted = mask.copy()
    margin = max(0, round((shape[2] - data.size_px[1] * 1.5 / in_plane_mm) / 2))
    wanted[:, :, :margin] = wanted[:, :, shape[2] - margin :] = False  # Outside of the grid is background.
    assert 2 * (wanted & (labels == 1)).sum() / (wanted.sum() + labels.sum()) > 0.93


def test_slices_are_predicted_in_bounded_batches(data: DataConfig) -> None:
    volume, mask = ellipse_volume((70, 48, 32), (1.0, 1.5, 1.5))
    runner = BrightIsForeground()
    labels = segment(volume, runner, data)
    assert max(shape[0] for shape in runner.batches) < 70
    np.testing.assert_array_equal(labels, mask)


def test_a_model_with_another_number_of_classes_is_refused(data: DataConfig) -> None:
    volume, _ = ellipse_volume((2, 48, 32), (8.0, 1.5, 1.5))
    with pytest.raises(DataError, match="bright gives 4 classes, the configuration names 2: background, blob"):
        segment(volume, BrightIsForeground(4), data)


def test_non_finite_probabilities_are_refused(data: DataConfig) -> None:
    class Broken(BrightIsForeground):
        def __call__(self, images: Images) -> Images:
            return np.full((len(images), 2, *images.shape[2:]), np.nan, np.float32)

    volume, _ = ellipse_volume((2, 48, 32), (8.0, 1.5, 1.5))
    with pytest.raises(DataError, match="NaN or infinite, from slice 0 on"):
        segment(volume, Broken(), data)


def test_probabilities_are_kept_only_on_request(data: DataConfig) -> None:
    volume, _ = ellipse_volume((3, 61, 33), (8.0, 1.1, 1.1))
    found = segment_fully(volume, BrightIsForeground(), data, keep_probabilities=True)
    assert found.probabilities is not None
    assert found.probabilities.shape == (3, 2, 61, 33)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=1), found.labels)
    parts: list[NDArray[np.float32]] = []
    assert segment_fully(volume, BrightIsForeground(), data, take_probabilities=parts.append).probabilities is None
    np.testing.assert_array_equal(np.concatenate(parts), found.probabilities)


def test_probabilities_are_correct_across_several_batches(data: DataConfig) -> None:
    volume, mask = ellipse_volume((70, 48, 32), (1.0, 1.5, 1.5))
    found = segment_fully(volume, BrightIsForeground(), data, keep_probabilities=True)
    assert found.probabilities is not None
    np.testing.assert_array_equal(found.probabilities[:, 1], mask)


class LeftIsForeground:
    """Gives the left half of every input a foreground probability of 0.8."""

    name = "left"

    def __call__(self, images: Images) -> Images:
        left = np.zeros(images[:, 0].shape, np.float32)
        left[:, :, : left.shape[2] // 2] = 0.8
        return np.stack([1 - left, left], axis=1)


def test_flips_average_four_views(data: DataConfig) -> None:
    volume, mask = ellipse_volume((2, 48, 32), (8.0, 1.5, 1.5))
    found = segment_fully(volume, LeftIsForeground(), data, Refinement(flips=True), keep_probabilities=True)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[:, 1], 0.4, atol=1e-6)
    # Flips do not change the labels of a flip-equivariant runner.
    np.testing.assert_array_equal(segment(volume, BrightIsForeground(), data, Refinement(flips=True)), mask)


def test_rotations_average_five_views(data: DataConfig) -> None:
    volume, mask = ellipse_volume((2, 48, 32), (8.0, 1.5, 1.5))
    refinement = Refinement(rotations=True)
    found = segment_fully(volume, LeftIsForeground(), data, refinement, keep_probabilities=True).probabilities
    assert found is not None
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)  # also in the corners, which few views cover
    left, centre, right = found[0, 1, 24, 2], found[0, 1, 24, 15:17].mean(), found[0, 1, 24, 29]
    assert (left, right) == pytest.approx((0.8, 0), abs=1e-3)  # within all of the wedges, and in none
    assert centre == pytest.approx(0.4, abs=0.1)
    # Rotations hardly change the labels of a rotation-equivariant runner.
    rotated = segment(volume, BrightIsForeground(), data, refinement)
    assert (rotated != mask).mean() < 0.02
    assert 2 * (rotated & mask).sum() / (rotated + mask).sum() > 0.95


@pytest.mark.parametrize("size_px", [(48, 48), (48, 32)])
@pytest.mark.parametrize("mirrored", [(), (2,), (3,), (2, 3)])
@pytest.mark.parametrize("degrees", [0.0, 15.0, -30.0])
def test_inverting_a_view_restores_the_image(
    size_px: tuple[int, int], mirrored: tuple[int, ...], degrees: float
) -> None:
    view = View(mirrored, degrees)
    rows, columns = np.mgrid[: size_px[0], : size_px[1]].astype(np.float32)
    blob = np.exp(-((rows - 20) ** 2 + (columns - 17) ** 2) / 18)[None, None]
    viewed = view.apply(blob)
    assert (np.abs(viewed - blob).max() > 0.1) == (view != View())
    assert viewed.sum() == pytest.approx(blob.sum(), rel=0.01)  # lengths are kept, also on grids that are not square
    np.testing.assert_allclose(view.invert(viewed), blob, atol=0.02)


def test_largest_components_keeps_the_largest_component_of_each_class() -> None:
    labels = np.zeros((3, 10, 10), np.uint8)
    labels[0, 1:4, 1:4] = 1
    labels[1, 4, 4] = 1  # touches it by a corner in the next slice
    labels[2, 8:, 8:] = 1
    labels[2, 0, 0:2] = 2
    labels[0, 0, 0] = 2  # found before the larger one
    kept = largest_components(labels, 4)
    expected = labels.copy()
    expected[2, 8:, 8:] = expected[0, 0, 0] = 0
    np.testing.assert_array_equal(kept, expected)
    assert not largest_components(np.zeros_like(labels), 4).any()
    assert Refinement().name == ""
    assert Refinement(flips=True, largest_component=True).name == "flips+largest-component"
    assert Refinement(rotations=True).name == "rotations"


def test_argmax_labels_breaks_ties_by_the_lowest_class() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (2, 4, 5, 6)).astype(np.float32)  # with many ties
    np.testing.assert_array_equal(argmax_labels(scores), scores.argmax(axis=1))


class Unsure:
    """Class 1 with 0.7 on the left half; with 0.9 in later views, which `expected_dice` ignores."""

    name = "unsure"

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, images: Images) -> Images:
        self._calls += 1
        blob = np.full_like(images[:, 0], 0.1)
        blob[..., : images.shape[3] // 2] = 0.7 if self._calls == 1 else 0.9
        return np.stack([1 - blob, blob], axis=1)


@pytest.mark.parametrize("refinement", [Refinement(), Refinement(rotations=True), Refinement(largest_component=True)])
def test_expected_dice_is_measured_on_the_unrefined_prediction(data: DataConfig, refinement: Refinement) -> None:
    volume, _ = ellipse_volume((3, 48, 32), (8.0, 1.5, 1.5))
    found = segment_fully(volume, Unsure(), data, refinement)
    # Half of the pixels have .7 and are labelled, the others have .1: 2 * .7 / (.7 + .1 + 1).
    assert found.expected_dice == {"blob": pytest.approx(1.4 / 1.8)}
