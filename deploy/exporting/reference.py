"""The reference for parity: the segmentor in PyTorch with all outputs of the exported graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deploy.artifact.tensors import PROBABILITIES, TensorSpec
from deploy.exporting.graph import Exported, device_of
from maag.inference import evaluation_mode


class Reference:
    """A segmentor in PyTorch on the device of its weights; its training mode is not changed.

    Args:
        segmentor: a module whose output has `logits` and `gate_maps`.
        outputs: outputs of the exported graph.
        levels: levels of the gates among them.
        batch_size: slices per batch.
    """

    def __init__(
        self, segmentor: nn.Module, outputs: tuple[TensorSpec, ...], levels: tuple[int, ...], batch_size: int = 16
    ) -> None:
        self._module = Exported(segmentor, levels)
        self._names = tuple(spec.name for spec in outputs)
        self._device = device_of(segmentor)
        self._batch_size = batch_size

    @property
    def name(self) -> str:
        """`torch-cpu` or `torch-cuda`."""
        return f"torch-{self._device.type}"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities (N, num_classes, H, W) float32 of normalised images (N, C, H, W) float32."""
        return self.outputs(images)[PROBABILITIES]

    def outputs(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """All outputs by name, with the types in the manifest."""
        with evaluation_mode(self._module), torch.inference_mode():
            parts = [
                # Convolutions are fastest in this memory layout.
                self._module(batch.to(self._device, memory_format=torch.channels_last))
                for batch in torch.split(torch.from_numpy(images), self._batch_size)
            ]
        whole = (torch.cat(some).contiguous().cpu().numpy() for some in zip(*parts, strict=True))
        return dict(zip(self._names, whole, strict=True))
