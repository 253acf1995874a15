"""How the loop ends, with scripted validations: done, early, interrupted or out of time."""

from __future__ import annotations

import pytest
from scripted_loop import STEPS_PER_EPOCH, run_loop

from maag.config.schema import Config


def test_a_stop_request_at_the_last_step_ends_as_done(tiny_config: Config) -> None:
    assert run_loop(tiny_config, {}, stop_at=2 * STEPS_PER_EPOCH).ending == "done"
    assert run_loop(tiny_config, {}, stop_at=STEPS_PER_EPOCH).ending == "interrupted"


def test_a_time_limit_at_the_last_step_ends_as_done(tiny_config: Config) -> None:
    assert run_loop(tiny_config, {}, max_minutes=0).ending == "time"
    one_step = {"optim.epochs": 1}
    assert run_loop(tiny_config, one_step, steps_per_epoch=1, max_minutes=0).ending == "done"


@pytest.mark.parametrize("min_delta", [0.0, 1e-5])
def test_a_run_without_gains_uses_up_its_patience(tiny_config: Config, min_delta: float) -> None:
    changes = {"optim.epochs": 9, "train.patience": 2, "train.min_delta": min_delta}
    found = run_loop(tiny_config, changes, [0.0])
    assert found.ending == "early"
    assert [report.is_best for report in found.epochs] == [True, False, False]


@pytest.mark.slow
def test_a_gain_resets_the_patience(tiny_config: Config) -> None:
    found = run_loop(tiny_config, {"optim.epochs": 9, "train.patience": 2}, [0.1, 0.1, 0.2])
    assert (found.ending, len(found.epochs)) == ("early", 5)


def test_a_gain_counts_from_min_delta_on(tiny_config: Config) -> None:
    changes = {"optim.epochs": 4, "train.min_delta": 0.125}
    found = run_loop(tiny_config, changes, [0.25, 0.375, 0.4375, 0.625]).epochs
    assert [report.is_best for report in found] == [True, True, False, True]
