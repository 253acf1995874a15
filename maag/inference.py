"""Segmentation of whole volumes, with any runtime for the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from maag.config.data import DataConfig
from maag.data.files.orientation import Reorientation
from maag.data.files.volume import Volume
from maag.data.geometry import prepare_image, scores_to_source
from maag.data.slices.views import View
from maag.errors import DataError
from maag.expected_dice import ExpectedDice

_MIRRORS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))  # axes of (N, C, H, W)
ROTATIONS_DEG = (0.0, 15.0, -15.0, 30.0, -30.0)
"""Angles of test-time augmentation with rotations."""
_SLICES_AT_ONCE = 32  # Limits the memory that probabilities take at source resolution.


class Runner(Protocol):
    """Runs a segmentor: with PyTorch, ONNX Runtime or TensorRT."""

    @property
    def name(self) -> str:
        """Runtime and device, for reports: `torch-cpu`."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (N, num_classes, H, W) of normalised images (N, C, H, W)."""


class TorchRunner:
    """Runs a segmentor with PyTorch. The module stays on `device` afterwards; its training mode is restored.

    Args:
        segmentor: a module whose output has `logits` (N, num_classes, H, W).
        device: where it runs.
        batch_size: slices at a time.
    """

    def __init__(self, segmentor: nn.Module, device: torch.device | str = "cpu", batch_size: int = 16) -> None:
        self._device = torch.device(device)
        self._segmentor = segmentor.to(self._device)
        self._batch_size = batch_size

    @property
    def name(self) -> str:
        """`torch-cpu` or `torch-cuda`."""
        return f"torch-{self._device.type}"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (N, num_classes, H, W) float32 of normalised images (N, C, H, W) float32."""
        with evaluation_mode(self._segmentor), torch.inference_mode():
            parts = [
                self._segmentor(
                    # Convolutions are fastest in this layout.
                    batch.to(self._device, memory_format=torch.channels_last)
                ).logits.softmax(dim=1)
                for batch in torch.split(torch.from_numpy(images), self._batch_size)
            ]
            probabilities: NDArray[np.float32] = torch.cat(parts).float().contiguous().cpu().numpy()
        return probabilities


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode for the block; then restore the mode of each of its parts."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@dataclass(frozen=True, kw_only=True, slots=True)
class Refinement:
    """Test-time augmentation and post-processing."""

    flips: bool = False
    """Average the probabilities of the image and its three mirror images."""
    rotations: bool = False
    """Average the probabilities of the image rotated by each of ROTATIONS_DEG."""
    largest_component: bool = False
    """Keep only the largest connected component of each class in the volume."""

    @property
    def name(self) -> str:
        """The refinements in a fixed order, such as `flips+largest-component`; empty if there are none."""
        parts = (("flips", self.flips), ("rotations", self.rotations), ("largest-component", self.largest_component))
        return "+".join(name for name, enabled in parts if enabled)

    @property
    def views(self) -> tuple[View, ...]:
        """The views that the network segments; the unchanged image comes first."""
        angles = ROTATIONS_DEG if self.rotations else (0.0,)
        return tuple(View(axes, degrees) for axes in (_MIRRORS if self.flips else ((),)) for degrees in angles)


PLAIN = Refinement()


class Segmentation(NamedTuple):
    """A segmented volume."""

    labels: NDArray[np.uint8]
    """(Z, Y, X)."""
    probabilities: NDArray[np.float32] | None
    """(Z, num_classes, Y, X) in [0, 1], before components are removed; None if they were not requested."""
    expected_dice: dict[str, float]
    """See `maag.expected_dice`: by foreground class, for a single pass without refinement on the training grid."""


def segment(volume: Volume, runner: Runner, data: DataConfig, refinement: Refinement = PLAIN) -> NDArray[np.uint8]:
    """Labels (Z, Y, X) uint8 in [0, num_classes) of a whole volume, as `segment_fully` gives them."""
    return segment_fully(volume, runner, data, refinement).labels


def segment_fully(
    volume: Volume,
    runner: Runner,
    data: DataConfig,
    refinement: Refinement = PLAIN,
    *,
    keep_probabilities: bool = False,
    take_probabilities: Callable[[NDArray[np.float32]], None] | None = None,
) -> Segmentation:
    """Segment a whole volume in its own geometry; voxels outside the training grid become background.

    Args:
        volume: voxels (C, Z, Y, X) with any intensities.
        runner: for images of `data.size_px`.
        data: the grid and classes that the runner's segmentor was trained with.
        refinement: test-time augmentation and post-processing.
        keep_probabilities: return the probabilities as well; they take 4 * num_classes bytes per voxel.
        take_probabilities: called with the probabilities of some slices (N, num_classes, Y, X) at a time, in order.

    Raises:
        DataError: the runner returns another number of classes, or NaN or infinite values.
    """
    images, grid = prepare_image(volume, data)
    labels, expected = [], ExpectedDice(data.num_classes)
    kept = np.empty((len(images), data.num_classes, *volume.shape[1:]), np.float32) if keep_probabilities else None
    for start in range(0, len(images), _SLICES_AT_ONCE):
        some = images[start : start + _SLICES_AT_ONCE]
        plain = runner(some)
        probabilities = _with_other_views(plain, some, runner, refinement.views)
        if probabilities.shape[1] != data.num_classes:
            raise DataError(
                f"{runner.name} gives {probabilities.shape[1]} classes, the configuration names {data.num_classes}: "
                f"{', '.join(data.classes)}; use the configuration that the model was trained with"
            )
        if not np.isfinite(probabilities).all():
            raise DataError(
                f"{runner.name} gives probabilities that are NaN or infinite, from slice {start} on; "
                "the model is damaged, or the image's intensities are extreme: check both"
            )
        expected.add(plain, argmax_labels(plain))
        in_source = np.asarray(scores_to_source(probabilities, grid))
        labels.append(argmax_labels(in_source))
        if kept is not None:
            kept[start : start + len(in_source)] = in_source
        if take_probabilities:
            take_probabilities(in_source)
    whole = np.concatenate(labels)
    if refinement.largest_component:
        whole = largest_components(whole, data.num_classes)
    return Segmentation(whole, kept, expected.by_class(data.classes))


def segment_reoriented(
    volume: Volume,
    reorientation: Reorientation,
    runner: Runner,
    data: DataConfig,
    refinement: Refinement = PLAIN,
    *,
    take_probabilities: Callable[[NDArray[np.float32]], None] | None = None,
) -> Segmentation:
    """As `segment_fully`, but the runner sees the volume reoriented; results have the volume's own orientation.

    Where `reorientation` does not keep slices, all probabilities are held in memory before they are taken.
    """
    reoriented, take = volume.reoriented(reorientation), take_probabilities
    streamed: Callable[[NDArray[np.float32]], None] | None = None
    if take and reorientation.keeps_slices:

        def streamed(slices: NDArray[np.float32]) -> None:
            take(reorientation.invert(slices))

    keep = take is not None and not reorientation.keeps_slices
    found = segment_fully(reoriented, runner, data, refinement, keep_probabilities=keep, take_probabilities=streamed)
    if take and found.probabilities is not None:
        take(reorientation.invert(found.probabilities.swapaxes(0, 1)).swapaxes(0, 1))
    return Segmentation(reorientation.invert(found.labels), None, found.expected_dice)


def argmax_labels(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, Y, X) uint8: the argmax over classes of (N, num_classes, Y, X) scores; ties go to the lowest class."""
    labels = np.zeros((len(scores), *scores.shape[2:]), np.uint8)
    # Slice by slice, which fits in the cache, and class by class: faster than argmax over an axis that is not last.
    for of_slice, planes in zip(labels, scores, strict=True):
        best = planes[0].copy()
        for value, plane in enumerate(planes[1:], start=1):
            np.copyto(of_slice, np.uint8(value), where=plane > best)
            np.maximum(best, plane, out=best)
    return labels


def largest_components(labels: NDArray[np.uint8], num_classes: int) -> NDArray[np.uint8]:
    """(Z, Y, X) labels with only the largest connected component of each class; the others become background.

    Voxels that share a corner are connected; of components of equal size the first is kept.
    """
    kept = np.zeros_like(labels)
    for label in range(1, num_classes):
        components, count = ndimage.label(labels == label, structure=np.ones((3, 3, 3)))
        if count:
            sizes = np.bincount(components.ravel())[1:]
            kept[components == 1 + int(sizes.argmax())] = label
    return kept


def mean_probabilities(images: NDArray[np.float32], runner: Runner, views: Sequence[View]) -> NDArray[np.float32]:
    """Class probabilities (N, num_classes, H, W) of (N, C, H, W) images, averaged over `views`, the plain one first."""
    return _with_other_views(runner(images), images, runner, views)


def _with_other_views(
    plain: NDArray[np.float32], images: NDArray[np.float32], runner: Runner, views: Sequence[View]
) -> NDArray[np.float32]:
    if len(views) == 1:
        return plain
    total = plain
    for view in views[1:]:
        total = total + view.invert(runner(view.apply(images)))
    # Rotated views do not cover the corners.
    mean: NDArray[np.float32] = total / total.sum(axis=1, keepdims=True)
    return mean
