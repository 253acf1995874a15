"""Which validation was the best, and when a run's patience is over."""

from __future__ import annotations

import pytest

from maag.config.training import TrainConfig
from maag.train.early_stopping import out_of_patience, record_validation
from maag.train.state import Progress


def test_the_best_is_kept_with_its_epoch() -> None:
    progress, train = Progress(), TrainConfig(min_delta=0.0)
    dices = [0.25, 0.5, 0.5, 0.375, 0.75]
    gains = [record_validation(progress, dice, 10 * epoch, train, is_due=True) for epoch, dice in enumerate(dices, 1)]
    assert gains == [True, True, False, False, True]
    assert progress == Progress(best_dice=0.75, best_epoch=50)


@pytest.mark.parametrize(("patience", "over"), [(0, False), (3, True), (4, False)])
def test_patience_is_so_many_validations_and_without_end_where_it_is_0(patience: int, over: bool) -> None:
    assert out_of_patience(Progress(without_gain=3), TrainConfig(patience=patience)) == over
