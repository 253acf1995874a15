"""The best validation so far, and early stopping."""

from __future__ import annotations

from maag.config.training import TrainConfig
from maag.train.state import Progress


def record_validation(progress: Progress, dice: float, epoch: int, train: TrainConfig, *, is_due: bool) -> bool:
    """Record a validation with the mean `dice` in `progress`; return whether it is the best so far.

    A validation that is not due, but was forced by a time limit, does not count against patience, because an
    uninterrupted run would not have it.
    """
    # An equal Dice is no gain even if min_delta is 0: a collapsed run has the same Dice again and again.
    if dice <= progress.best_dice or dice < progress.best_dice + train.min_delta:
        progress.without_gain += is_due
        return False
    progress.best_dice, progress.best_epoch, progress.without_gain = dice, epoch, 0
    return True


def out_of_patience(progress: Progress, train: TrainConfig) -> bool:
    """Whether `patience` validations passed without gain; never if `patience` is 0."""
    return 0 < train.patience <= progress.without_gain
