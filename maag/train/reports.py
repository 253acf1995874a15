"""What training tells whoever listens: the terminal, the journal, a cluster, a test's list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from maag.train.validate import ValidationDice


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """A glance in the middle of an epoch."""

    step: int
    epoch: int
    epochs: int
    lr: float
    losses: dict[str, float]
    """Means over the epoch so far."""
    steps_per_second: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReport:
    """The end of an epoch; a line of `metrics.jsonl`."""

    epoch: int
    """Epochs done, from 1."""
    epochs: int
    step: int
    """Updates done."""
    seconds: float
    """Wall time since the run began, over all resumed parts."""
    lr: float
    losses: dict[str, float]
    """Means over the epoch's steps."""
    steps_per_second: float
    """Of the training steps alone, since this process began or resumed."""
    validation: ValidationDice | None
    """None in an epoch without validation."""
    is_best: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain types, flat."""
        plain: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "lr": self.lr,
            "steps_per_second": round(self.steps_per_second, 4),
            "losses": self.losses,
        }
        if self.validation is not None:
            plain["dice"] = self.validation.per_class
            plain["mean_dice"] = self.validation.mean
            plain["is_best"] = self.is_best
        return plain


class Listener(Protocol):
    """Hears of progress; must not change it."""

    def on_live(self, live: Live) -> None:
        """Some steps were done."""

    def on_epoch(self, report: EpochReport) -> None:
        """An epoch ended."""

    def on_checkpoint(self, step: int) -> None:
        """The whole state was saved."""


class Listeners:
    """Several listeners as one, told in order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def on_live(self, live: Live) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.on_live(live)

    def on_epoch(self, report: EpochReport) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.on_epoch(report)

    def on_checkpoint(self, step: int) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.on_checkpoint(step)
