"""The losses of an epoch: summed on the device step by step, read now and then, for reading waits for the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maag.errors import NotFiniteError
from maag.train.state import TrainState
from maag.train.step import StepLosses


def steps_between_readings(device: torch.device) -> int:
    """Reading a loss waits for the device, and a GPU then stands idle until it is given the next step."""
    return 25 if device.type == "cuda" else 10


class LossSums:
    """Those of this process since the last reading; what was read is in the progress of `state`, over all workers."""

    def __init__(self, state: TrainState, lr: float) -> None:
        self._state = state
        self._lr = lr
        self._sums: dict[str, Tensor] = {}
        self._unread = 0

    def add(self, losses: StepLosses) -> None:
        """Those of one step more."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._unread += 1

    def read(self) -> bool:
        """Bring the sums to the progress as numbers; whether there were any.

        Raises:
            NotFiniteError: one is none.
        """
        if not self._unread:
            return False
        progress = self._state.progress
        means = self._state.team.mean(torch.stack(list(self._sums.values()))).tolist()
        for name, value in zip(self._sums, means, strict=True):
            if not math.isfinite(value):
                raise not_finite(f"the {name} loss became {value} at or shortly before step {progress.step}", self._lr)
            progress.losses[name] = progress.losses.get(name, 0.0) + value
        progress.steps_in_losses += self._unread
        self._sums, self._unread = {}, 0
        return True

    def means(self) -> dict[str, float]:
        """Of the epoch's steps that were read."""
        progress = self._state.progress
        return {name: value / progress.steps_in_losses for name, value in progress.losses.items()}

    def begin_epoch(self) -> None:
        """From here on the means are of other steps."""
        self._state.progress.losses, self._state.progress.steps_in_losses = {}, 0


def not_finite(what: str, lr: float) -> NotFiniteError:
    """The error of a run that cannot go on, as `what` it has says."""
    return NotFiniteError(
        f"{what}; the last good checkpoint is kept; try a lower optim.lr than {lr:g}, or check the images"
    )
