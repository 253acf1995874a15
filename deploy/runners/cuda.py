"""The parts of CUDA that an engine needs, through PyTorch: memory, a stream, graphs, the device's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor


class Cuda(Protocol):
    """A CUDA device with its own stream; tests use one of host memory."""

    @property
    def gpu(self) -> str:
        """The device's name."""

    @property
    def compute_capability(self) -> str:
        """`9.0`."""

    @property
    def version(self) -> str:
        """Version of the CUDA runtime: `13.0`."""

    @property
    def stream(self) -> int:
        """The handle of the stream."""

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory on the device."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Queue the body's work on the stream, and synchronise at the end, also after an error."""

    def capture(self, work: Callable[[], bool]) -> Callable[[], None] | None:
        """Capture `work`, which returns whether it could be queued, as a graph to replay on the stream; None if it
        cannot be captured."""


class TorchCuda:
    """PyTorch's current CUDA device."""

    def __init__(self) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device())
        # On the default stream TensorRT would synchronise the whole device at each step.
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @property
    def gpu(self) -> str:
        """The device's name."""
        return torch.cuda.get_device_name(self._device)

    @property
    def compute_capability(self) -> str:
        """`9.0`."""
        major, minor = torch.cuda.get_device_capability(self._device)
        return f"{major}.{minor}"

    @property
    def version(self) -> str:
        """Version of the CUDA runtime: `13.0`."""
        return str(torch.version.cuda)

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return int(self._stream.cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory on the device."""
        return torch.empty(shape, dtype=dtype, device=self._device)

    @contextmanager
    def working(self) -> Iterator[None]:
        """See Cuda."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            try:
                yield
            finally:
                # Also after an error: the body's buffers are freed now, and queued work may still write to them.
                self._stream.synchronize()

    def capture(self, work: Callable[[], bool]) -> Callable[[], None] | None:
        """See Cuda; None if CUDA or TensorRT refuses the capture."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use CUDA meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                captured = work()
        except RuntimeError:
            return None
        return graph.replay if captured else None
