"""Host memory in the place of a GPU's, for runners of engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class HostCuda:
    """Host memory in the place of a GPU's."""

    compute_capability = "9.0"
    version = "13.0"
    stream = 7

    def __init__(self, gpu: str = "NVIDIA Stand-In", *, captures: bool = True) -> None:
        self.gpu = gpu
        self.replays = 0
        self._captures = captures

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
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
