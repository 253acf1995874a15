"""How the loop saves, and when: as often as asked for, but never so often that training is kept waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from maag.train.validate import ValidationDice

_LARGEST_PART_FOR_SAVING = 0.1
"""Of the time, where validations are so frequent that a checkpoint after each would cost more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeper:
    """How the loop saves; the caller knows where."""

    save_last: Callable[[], None]
    save_best: Callable[[ValidationDice], None]


NOT_KEPT = Keeper(save_last=lambda: None, save_best=lambda dice: None)
"""For workers who leave saving to their leader."""


class SaveTimes:
    """When this process saved the state last, and how long that took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.last_step: int | None = None
        """The step that it was saved at; None before the first time."""
        self._clock = clock
        self._saved_at = clock()
        self._seconds_to_save = 0.0

    def is_due(self, every_minutes: float) -> bool:
        """Whether the last time, or the start, is longer ago."""
        return (self._clock() - self._saved_at) / 60 > every_minutes

    @property
    def are_cheap(self) -> bool:
        """Whether saving now leaves most of the time to training: on a GPU an epoch may take less than a checkpoint."""
        return self._clock() - self._saved_at > self._seconds_to_save / _LARGEST_PART_FOR_SAVING

    @contextmanager
    def timed(self, step: int) -> Iterator[None]:
        """Saves the state at `step` in its body; what fails does not count."""
        started = self._clock()
        yield
        self.last_step = step
        self._saved_at = self._clock()
        self._seconds_to_save = self._saved_at - started
