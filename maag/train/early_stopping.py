"""The best validation so far, and the patience with a run that gains nothing any more."""

from __future__ import annotations

from maag.config.training import TrainConfig
from maag.train.state import Progress


def note_validation(progress: Progress, dice: float, epoch: int, train: TrainConfig, *, is_due: bool) -> bool:
    """Take a validation with the mean `dice` into `progress`; whether it is the best so far.

    One that is not due, but that a time limit asked for, is no use of the run's patience: undisturbed it would not have
    been.
    """
    # An equal Dice is no gain, though min_delta may be 0: a dead run has the same again and again.
    if dice <= progress.best_dice or dice < progress.best_dice + train.min_delta:
        progress.without_gain += is_due
        return False
    progress.best_dice, progress.best_epoch, progress.without_gain = dice, epoch, 0
    return True


def patience_is_over(progress: Progress, train: TrainConfig) -> bool:
    """Whether `patience` validations, where that is not 0, passed without gain."""
    return 0 < train.patience <= progress.without_gain
