"""From a volume to its labels, whatever runs the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from maag.config.schema import DataConfig
from maag.data.geometry import prepare_image, scores_to_source
from maag.data.volume import Volume
from maag.errors import DataError

_SLICES_AT_ONCE = 32  # Bounds the memory that scores take at source resolution.


class Runner(Protocol):
    """Something that runs a segmentor: PyTorch, ONNX Runtime."""

    @property
    def name(self) -> str:
        """What runs it and where, for reports: `torch-cpu`."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (N, num_classes, H, W) of normalised images (N, C, H, W)."""


class TorchRunner:
    """A segmentor in PyTorch. The module is moved to `device` for good; its training mode is left as it was.

    Args:
        segmentor: a module whose output has `logits` (N, num_classes, H, W).
        device: where it runs.
        batch_size: slices at once.
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
                    # The memory layout in which convolutions are fastest.
                    batch.to(self._device, memory_format=torch.channels_last)
                ).logits.softmax(dim=1)
                for batch in torch.split(torch.from_numpy(images), self._batch_size)
            ]
            probabilities: NDArray[np.float32] = torch.cat(parts).float().contiguous().cpu().numpy()
        return probabilities


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode; on leaving, each of its parts is back in the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def segment(volume: Volume, runner: Runner, data: DataConfig) -> NDArray[np.uint8]:
    """Segment a whole volume, in its own geometry.

    Args:
        volume: voxels (Z, Y, X) in any intensity.
        runner: made for images of `data.size_px`.
        data: the grid and classes that the runner's segmentor was trained with.

    Returns:
        Labels (Z, Y, X) uint8 in [0, num_classes); outside of the grid is background.

    Raises:
        DataError: the runner gives another number of classes, or values that are not numbers.
    """
    images, grid = prepare_image(volume, data)
    parts = []
    for start in range(0, len(images), _SLICES_AT_ONCE):
        probabilities = runner(images[start : start + _SLICES_AT_ONCE])
        if probabilities.shape[1] != data.num_classes:
            raise DataError(
                f"{runner.name} gives {probabilities.shape[1]} classes, the configuration names {data.num_classes}: "
                f"{', '.join(data.classes)}; use the configuration that the model was trained with"
            )
        if not np.isfinite(probabilities).all():
            raise DataError(
                f"{runner.name} gives probabilities that are not numbers, from slice {start} on; "
                "the model is damaged, or the image's intensities are extreme: look at both"
            )
        parts.append(np.asarray(scores_to_source(probabilities, grid)).argmax(axis=1).astype(np.uint8))
    return np.concatenate(parts)
