"""The best validation, and the end of a run's patience."""

from __future__ import annotations

import pytest

from maag.config.training import TrainConfig
from maag.train.early_stopping import out_of_patience, record_validation
from maag.train.state import Progress


def test_the_best_dice_is_recorded_with_its_epoch() -> None:
    progress, train = Progress(), TrainConfig(min_delta=0.0)
    dices = [0.25, 0.5, 0.5, 0.375, 0.75]
    gains = [record_validation(progress, dice, 10 * epoch, train, is_due=True) for epoch, dice in enumerate(dices, 1)]
    assert gains == [True, True, False, False, True]
    assert progress == Progress(best_dice=0.75, best_epoch=50)


@pytest.mark.parametrize(("patience", "over"), [(0, False), (3, True), (4, False)])
def test_patience_counts_validations_and_zero_means_unlimited(patience: int, over: bool) -> None:
    assert out_of_patience(Progress(without_gain=3), TrainConfig(patience=patience)) == over
