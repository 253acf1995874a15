"""Progress reports of training and the listeners that receive them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from maag.train.validate import ValidationDice


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """Progress within an epoch, after some steps."""

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
    """Results of an epoch; a line of `metrics.jsonl`."""

    epoch: int
    """Epochs done, from 1."""
    epochs: int
    step: int
    """Updates done."""
    seconds: float
    """Wall time of the run, including before a resume."""
    lr: float
    losses: dict[str, float]
    """Means over the epoch's steps."""
    steps_per_second: float
    """Of the training steps alone, in this process."""
    validation: ValidationDice | None
    """None in an epoch without validation."""
    is_best: bool

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the line."""
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
    """Receives progress reports; must not change the training state."""

    def on_step(self, report: StepReport) -> None:
        """Called after some steps, not after each."""

    def on_epoch(self, report: EpochReport) -> None:
        """Called after an epoch."""

    def on_checkpoint(self, step: int) -> None:
        """Called after the whole state was saved."""


class Listeners:
    """Several listeners as one, called in order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def on_step(self, report: StepReport) -> None:
        """See Listener."""
        for listener in self._listeners:
            listener.on_step(report)

    def on_epoch(self, report: EpochReport) -> None:
        """See Listener."""
        for listener in self._listeners:
            listener.on_epoch(report)

    def on_checkpoint(self, step: int) -> None:
        """See Listener."""
        for listener in self._listeners:
            listener.on_checkpoint(step)
