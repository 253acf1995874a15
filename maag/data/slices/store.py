"""Slices for training and validation, on the device or in a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_RESIDENT_PART = 0.5  # of the device's free memory that slices may take


class SliceStore:
    """Slices by index: on the device if `resident`, else read from their file on demand."""

    def __init__(self, array: NDArray[Any], device: torch.device, *, resident: bool) -> None:
        self._device = device
        # Only one copy is kept, as it may take gigabytes. Torch warns of read-only arrays.
        self._slices = torch.from_numpy(np.require(array, requirements="W")).to(device) if resident else array

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Slices `indices` (n,) as (n, ...) on the device."""
        if isinstance(self._slices, Tensor):
            return self._slices[upload(torch.from_numpy(indices), self._device)]
        # Disks and page caches are fastest when read in the file's order.
        order = np.argsort(indices)
        found = np.empty((len(indices), *self._slices.shape[1:]), dtype=self._slices.dtype)
        found[order] = self._slices[indices[order]]
        return upload(torch.from_numpy(found), self._device)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """`values` on `device`, without waiting for the work that is queued there; as they are if they are there."""
    if device.type == "cuda" and not values.is_cuda:
        values = values.pin_memory()  # from other memory, CUDA may wait for the queue before it copies
    return values.to(device, non_blocking=True)


def fits(num_bytes: int, device: torch.device) -> bool:
    """Whether `num_bytes` of slices leave most of the device to training; a CPU reads them from the page cache."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes < free * _RESIDENT_PART
