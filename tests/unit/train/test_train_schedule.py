"""Schedules of learning rates and of weights."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maag.config.training import OptimConfig
from maag.train.schedule import ramp_factor, rate_factor

TRIANGLE = OptimConfig(lr=1e-3, lr_min=1e-4, schedule="triangular", half_cycle_epochs=20, epochs=100)


@pytest.mark.parametrize("turn", [0, 1, 3])
def test_a_triangle_climbs_and_falls_in_straight_lines(turn: int) -> None:
    start = 40 * turn
    for part in (0, 0.25, 0.6, 1):
        expected = pytest.approx(0.1 + 0.9 * part)
        assert rate_factor(TRIANGLE, start + 20 * part) == expected
        assert rate_factor(TRIANGLE, start + 40 - 20 * part) == expected


def test_a_cosine_falls_from_the_highest_rate_to_the_lowest_and_stays() -> None:
    config = OptimConfig(lr=1e-3, lr_min=1e-4, schedule="cosine", epochs=30)
    assert rate_factor(config, 0) == 1
    assert rate_factor(config, 15) == pytest.approx(0.55)
    assert rate_factor(config, 30) == rate_factor(config, 31) == pytest.approx(0.1)


def test_a_power_falls_from_the_highest_rate_to_the_lowest_and_stays() -> None:
    config = OptimConfig(lr=1e-3, lr_min=1e-4, schedule="poly", epochs=30)
    assert rate_factor(config, 0) == 1
    assert rate_factor(config, 15) == pytest.approx(0.1 + 0.9 * 0.5**0.9)
    assert rate_factor(config, 30) == rate_factor(config, 31) == pytest.approx(0.1)


def test_a_ramp_climbs_to_its_full_weight_and_stays() -> None:
    climb = [ramp_factor(0.4, part / 20) for part in range(21)]
    assert climb[0] == pytest.approx(math.exp(-5))
    assert climb[4] == pytest.approx(math.exp(-5 / 4))
    assert climb[8:] == [1.0] * 13
    assert climb == sorted(climb)
    assert ramp_factor(0, 0) == 1


def test_a_constant_rate_is_the_highest() -> None:
    config = OptimConfig(schedule="constant")
    assert {rate_factor(config, epoch) for epoch in (0, 0.3, 7, config.epochs)} == {1.0}


@st.composite
def courses(draw: st.DrawFn) -> OptimConfig:
    lr = draw(st.floats(1e-9, 10))
    return OptimConfig(
        lr=lr,
        lr_min=draw(st.floats(0, lr)),
        schedule=draw(st.sampled_from(["triangular", "cosine", "poly", "constant"])),
        half_cycle_epochs=draw(st.integers(1, 500)),
        epochs=draw(st.integers(1, 500)),
    )


@given(courses(), st.floats(0, 1))
def test_the_rate_keeps_between_its_limits(config: OptimConfig, progress: float) -> None:
    assert config.lr_min / config.lr <= rate_factor(config, progress * config.epochs) <= 1
