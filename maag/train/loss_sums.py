"""The losses of an epoch, summed on the device and read only every few steps, because reading waits for the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maag.errors import NotFiniteError
from maag.train.state import TrainState
from maag.train.step import StepLosses


def steps_between_readings(device: torch.device) -> int:
    """Steps between two readings of the losses; more on a GPU, which idles after a reading until the next step."""
    return 25 if device.type == "cuda" else 10


class LossSums:
    """Sums of this process since the last reading; earlier sums, over all workers, are in the progress of `state`."""

    def __init__(self, state: TrainState, lr: float) -> None:
        self._state = state
        self._lr = lr
        self._sums: dict[str, Tensor] = {}
        self._unread = 0

    def add(self, losses: StepLosses) -> None:
        """Add the losses of one step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._unread += 1

    def read(self) -> bool:
        """Move the sums to the progress as numbers; return whether there were any.

        Raises:
            NotFiniteError: a loss is NaN or infinite.
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
        """Mean losses over those steps of the epoch that were read."""
        progress = self._state.progress
        return {name: value / progress.steps_in_losses for name, value in progress.losses.items()}

    def begin_epoch(self) -> None:
        """Reset the means."""
        self._state.progress.losses, self._state.progress.steps_in_losses = {}, 0


def not_finite(what: str, lr: float) -> NotFiniteError:
    """The error of a run that cannot continue because of `what`."""
    return NotFiniteError(
        f"{what}; the last good checkpoint is kept; try a lower optim.lr than {lr:g}, or check the images"
    )
