"""When a run's state is saved, by a clock that the test controls."""

from __future__ import annotations

import pytest

from maag.train.checkpointing import SaveTimes


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_save_is_due_after_checkpoint_minutes(clock: Clock) -> None:
    saves = SaveTimes(clock)
    clock.seconds += 4.9 * 60
    assert not saves.is_due(5)
    clock.seconds += 0.2 * 60
    assert saves.is_due(5)
    with saves.timed(7):
        pass
    assert saves.last_step == 7
    assert not saves.is_due(5)


def test_saves_are_cheap_up_to_a_tenth_of_the_time(clock: Clock) -> None:
    saves = SaveTimes(clock)
    clock.seconds += 1
    assert saves.are_cheap
    with saves.timed(3):
        clock.seconds += 6
    clock.seconds += 59
    assert not saves.are_cheap
    clock.seconds += 2
    assert saves.are_cheap


def test_a_failed_save_does_not_count(clock: Clock) -> None:
    saves = SaveTimes(clock)
    clock.seconds += 400
    with pytest.raises(OSError, match="full"), saves.timed(3):
        raise OSError("full")
    assert saves.last_step is None
    assert saves.is_due(5)
