"""The few things of CUDA that an engine needs, by way of PyTorch: memory, a stream, a graph, the device's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor


class Cuda(Protocol):
    """A CUDA device with a stream of its own; tests bring one of host memory."""

    @property
    def gpu(self) -> str:
        """The device's name."""

    @property
    def compute_capability(self) -> str:
        """`9.0`."""

    @property
    def version(self) -> str:
        """Of the CUDA runtime: `13.0`."""

    @property
    def stream(self) -> int:
        """The handle of the stream."""

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory on the device; its content is undefined."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work of the body goes to the stream, and is done at the end, also at that by an error."""

    def capture(self, work: Callable[[], bool]) -> Callable[[], None] | None:
        """`work`, which says whether it could be queued, as a graph that is replayed on the stream; None where it
        cannot be captured."""


class TorchCuda:
    """PyTorch's current CUDA device."""

    def __init__(self) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device())
        # Not the default stream, on which TensorRT would wait for the whole device at each step.
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
        """Of the CUDA runtime: `13.0`."""
        return str(torch.version.cuda)

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return int(self._stream.cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory on the device; its content is undefined."""
        return torch.empty(shape, dtype=dtype, device=self._device)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work of the body goes to the stream, and is done at the end."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            try:
                yield
            finally:
                # After an error, too: the body's buffers go now, and what is queued may yet write to them.
                self._stream.synchronize()

    def capture(self, work: Callable[[], bool]) -> Callable[[], None] | None:
        """`work` as a graph; None where CUDA or TensorRT refuses to capture it."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may go on using CUDA meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                captured = work()
        except RuntimeError:
            return None
        return graph.replay if captured else None
