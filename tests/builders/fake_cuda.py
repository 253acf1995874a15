"""A fake CUDA device that computes on host memory, for engine runners."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class FakeCuda:
    """A fake `deploy.runners.cuda.Cuda` with at most `memory` bytes (None is unlimited)."""

    compute_capability = "9.0"
    version = "13.0"
    stream = 7

    def __init__(self, gpu: str = "NVIDIA Stand-In", *, captures: bool = True, memory: int | None = None) -> None:
        self.gpu = gpu
        self.replays = 0
        self._captures = captures
        self.memory = memory

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if self.memory is not None:
            self.memory -= math.prod(shape) * dtype.itemsize
            if self.memory < 0:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 MiB. GPU 0 has no more.")
        return torch.full(shape, 99, dtype=dtype)

    @contextmanager
    def working(self) -> Iterator[None]:
        yield

    def capture(self, work: Callable[[], bool]) -> Callable[[], None] | None:
        if not (self._captures and work()):
            return None

        def replay() -> None:
            self.replays += 1
            assert work()

        return replay
