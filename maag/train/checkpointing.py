"""How and when the loop saves checkpoints: as often as configured, unless saving would slow training down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from maag.train.validate import ValidationDice

_MAX_SAVING_FRACTION = 0.1
"""Of the time, for checkpoints after validations that are so frequent that saving after each would cost more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saver:
    """The loop's callbacks for saving."""

    save_last: Callable[[], None]
    save_best: Callable[[ValidationDice], None]


NO_SAVES = Saver(save_last=lambda: None, save_best=lambda dice: None)
"""For workers that leave saving to their leader."""


class SaveTimes:
    """When this process last saved the state, and how long that took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.last_step: int | None = None
        """Step of the last save; None before the first."""
        self._clock = clock
        self._saved_at = clock()
        self._seconds_to_save = 0.0

    def is_due(self, every_minutes: float) -> bool:
        """Whether the last save, or the start, is more than `every_minutes` ago."""
        return (self._clock() - self._saved_at) / 60 > every_minutes

    @property
    def are_cheap(self) -> bool:
        """Whether saving now leaves most of the time to training: on a GPU an epoch may take less than a checkpoint."""
        return self._clock() - self._saved_at > self._seconds_to_save / _MAX_SAVING_FRACTION

    @contextmanager
    def timed(self, step: int) -> Iterator[None]:
        """Time the body, which saves the state at `step`; a save that fails does not count."""
        started = self._clock()
        yield
        self.last_step = step
        self._saved_at = self._clock()
        self._seconds_to_save = self._saved_at - started
