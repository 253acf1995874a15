"""Schedules of learning rates and of loss weights."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maag.config.training import OptimConfig
from maag.train.schedule import ramp_factor, rate_factor

TRIANGLE = OptimConfig(lr=1e-3, lr_min=1e-4, schedule="triangular", half_cycle_epochs=20, epochs=100)


@pytest.mark.parametrize("cycle", [0, 1, 3])
def test_a_triangular_schedule_rises_and_falls_linearly(cycle: int) -> None:
    start = 40 * cycle
    for part in (0, 0.25, 0.6, 1):
        expected = pytest.approx(0.1 + 0.9 * part)
        assert rate_factor(TRIANGLE, start + 20 * part) == expected
        assert rate_factor(TRIANGLE, start + 40 - 20 * part) == expected


def test_a_cosine_schedule_falls_to_the_minimum_rate_and_stays() -> None:
    config = OptimConfig(lr=1e-3, lr_min=1e-4, schedule="cosine", epochs=30)
    assert rate_factor(config, 0) == 1
    assert rate_factor(config, 15) == pytest.approx(0.55)
    assert rate_factor(config, 30) == rate_factor(config, 31) == pytest.approx(0.1)


def test_a_polynomial_schedule_falls_to_the_minimum_rate_and_stays() -> None:
    config = OptimConfig(lr=1e-3, lr_min=1e-4, schedule="poly", epochs=30)
    assert rate_factor(config, 0) == 1
    assert rate_factor(config, 15) == pytest.approx(0.1 + 0.9 * 0.5**0.9)
    assert rate_factor(config, 30) == rate_factor(config, 31) == pytest.approx(0.1)


def test_a_ramp_rises_to_its_full_weight_and_stays() -> None:
    factors = [ramp_factor(0.4, part / 20) for part in range(21)]
    assert factors[0] == pytest.approx(math.exp(-5))
    assert factors[4] == pytest.approx(math.exp(-5 / 4))
    assert factors[8:] == [1.0] * 13
    assert factors == sorted(factors)
    assert ramp_factor(0, 0) == 1


def test_a_constant_schedule_keeps_the_maximum_rate() -> None:
    config = OptimConfig(schedule="constant")
    assert {rate_factor(config, epoch) for epoch in (0, 0.3, 7, config.epochs)} == {1.0}


@st.composite
def schedules(draw: st.DrawFn) -> OptimConfig:
    lr = draw(st.floats(1e-9, 10))
    return OptimConfig(
        lr=lr,
        lr_min=draw(st.floats(0, lr)),
        schedule=draw(st.sampled_from(["triangular", "cosine", "poly", "constant"])),
        half_cycle_epochs=draw(st.integers(1, 500)),
        epochs=draw(st.integers(1, 500)),
    )


@given(schedules(), st.floats(0, 1))
def test_the_rate_stays_between_its_limits(config: OptimConfig, progress: float) -> None:
    assert config.lr_min / config.lr <= rate_factor(config, progress * config.epochs) <= 1
