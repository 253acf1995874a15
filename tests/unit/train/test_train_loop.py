"""What the loop sets before each step, and what it reports of losses, validations and time."""

from __future__ import annotations

import math

import pytest
from scripted_loop import STEPS_PER_EPOCH, run_loop

from maag.config.schema import Config


@pytest.mark.slow
def test_each_step_has_its_own_noise_seed_derived_from_the_run_seed(tiny_config: Config) -> None:
    seeds = [each.seed for each in run_loop(tiny_config, {}).step_settings]
    assert len(set(seeds)) == len(seeds) == 2 * STEPS_PER_EPOCH
    assert [each.seed for each in run_loop(tiny_config, {}).step_settings] == seeds
    assert set(seeds).isdisjoint(each.seed for each in run_loop(tiny_config, {"train.seed": 5}).step_settings)


def test_the_ramp_rises_to_one_at_its_end(tiny_config: Config) -> None:
    ramps = [each.ramp for each in run_loop(tiny_config, {"teacher.ramp": 0.5}).step_settings]
    ramped = [math.exp(-5 * (1 - step / STEPS_PER_EPOCH) ** 2) for step in range(STEPS_PER_EPOCH)]
    assert ramps == pytest.approx([*ramped, *[1.0] * STEPS_PER_EPOCH])


def test_both_learning_rates_decay_together_at_every_step(tiny_config: Config) -> None:
    rates = {"optim.schedule": "poly", "optim.lr": 1e-3, "optim.lr_min": 1e-5, "optim.lr_discriminator": 4e-4}
    step_settings = run_loop(tiny_config, rates).step_settings
    remaining = [1 - step / (2 * STEPS_PER_EPOCH) for step in range(2 * STEPS_PER_EPOCH)]
    factors = [0.01 + 0.99 * rest**0.9 for rest in remaining]
    assert [each.lr for each in step_settings] == pytest.approx([1e-3 * factor for factor in factors])
    assert [each.lr_discriminator for each in step_settings] == pytest.approx([4e-4 * factor for factor in factors])


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "measured"), [(4, [1, 2, 4]), (5, [1, 2, 3, 5]), (1, [1])])
def test_each_half_of_the_run_validates_at_its_own_interval(
    tiny_config: Config, epochs: int, measured: list[int]
) -> None:
    changes = {"optim.epochs": epochs, "train.validate_every": 1, "train.validate_every_late": 3 if epochs > 4 else 4}
    found = run_loop(tiny_config, changes).epochs
    assert [report.epoch for report in found] == list(range(1, epochs + 1))
    assert [report.epoch for report in found if "dice" in report.to_dict()] == measured


def test_an_epoch_report_has_the_losses_of_its_own_steps(tiny_config: Config) -> None:
    first, second = run_loop(tiny_config, {}, labelled_up_to=STEPS_PER_EPOCH).epochs
    assert first.losses["supervised"] > 0
    assert second.losses["supervised"] == 0


@pytest.mark.slow
def test_step_reports_name_their_epoch(tiny_config: Config) -> None:
    step_reports = run_loop(tiny_config, {}, steps_per_epoch=11).step_reports
    assert [(report.step, report.epoch) for report in step_reports] == [(10, 1), (11, 1), (20, 2), (22, 2)]


def test_the_remaining_time_falls_to_zero(tiny_config: Config) -> None:
    first, last = run_loop(tiny_config, {}).step_reports
    assert first.seconds_left > 0
    assert last.seconds_left == 0
