"""What befalls workers: losses, spells without room, and what ends a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from ray.train import Checkpoint
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.controller.state import ReschedulingState, RunningState
from ray.train.v2.api.exceptions import ControllerError

from maag.errors import ConfigError, DataError, DeviceMemoryError, MaagError, OutOfTimeError, TrainingError
from maag.train.launch.board import Lost, Waiting
from maag.train.launch.recovery import LOSSES_IN_A_ROW, TRIES_FOR_ROOM, Recovery, cause_of, give_up
from maag.train.launch.starts import Starts


class FakeBoard:
    """A board without an actor."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.put = self

    def remote(self, note: Any) -> None:
        self.notes.append(note)


def losses(recovery: Recovery, times: int, error: Exception) -> None:
    for _ in range(times):
        recovery.after_exception(None, {0: RuntimeError("Connection closed by peer"), 1: error})


def test_losses_are_told_and_gone_on_from(tmp_path: Path) -> None:
    board = FakeBoard()
    recovery = Recovery(board)
    stored = Checkpoint.from_directory(str(tmp_path))
    for _ in range(4):
        losses(recovery, LOSSES_IN_A_ROW - 1, ray.exceptions.RayActorError())
        recovery.after_report(None, [{}], stored)
    assert {note.reason for note in board.notes} == {"a worker died"}
    losses(recovery, 1, RuntimeError("something else"))
    assert board.notes[-1] == Lost("RuntimeError: Connection closed by peer")


def test_losses_without_a_checkpoint_in_between_are_no_bad_luck() -> None:
    recovery = Recovery(FakeBoard())
    losses(recovery, LOSSES_IN_A_ROW - 1, ray.exceptions.RayActorError())
    recovery.after_report(None, [{}], None)
    with pytest.raises(TrainingError, match="3 times without reaching a checkpoint, the last time with: a worker died"):
        losses(recovery, 1, ray.exceptions.RayActorError())


def test_a_full_memory_is_tried_again_as_other_losses_are() -> None:
    board = FakeBoard()
    recovery = Recovery(board)
    full = {0: DeviceMemoryError("cuda: its memory does not hold training; take less")}
    for _ in range(LOSSES_IN_A_ROW - 1):
        recovery.after_exception(None, full)
    assert len(board.notes) == LOSSES_IN_A_ROW - 1
    with pytest.raises(TrainingError, match=r"3 times .*, the last time with: .* not hold training; take less"):
        recovery.after_exception(None, full)


def starts_in_vain(starts: Starts, error: Exception, times: int) -> None:
    for _ in range(times):
        starts.after_controller_state_update(None, ReschedulingState(ControllerError(error)))


def test_room_is_waited_for_and_the_wait_told_once() -> None:
    board = FakeBoard()
    starts = Starts(board, Recovery(board))
    for spell in range(1, 5):
        starts_in_vain(starts, WorkerGroupStartupTimeoutError(2), TRIES_FOR_ROOM - 1)
        assert board.notes == [Waiting()] * spell
        starts.after_controller_state_update(None, RunningState())
    with pytest.raises(TrainingError, match="no room for the workers for 40 minutes"):
        starts_in_vain(starts, WorkerGroupStartupTimeoutError(2), TRIES_FOR_ROOM)


def test_workers_that_end_as_they_start_are_losses(tmp_path: Path) -> None:
    board = FakeBoard()
    starts = Starts(board, recovery := Recovery(board))
    failed = WorkerGroupStartupFailedError("One of the worker actors failed to initialize due to error:\n...")
    failed.__cause__ = ray.exceptions.RayActorError()
    for _ in range(4):
        starts_in_vain(starts, failed, LOSSES_IN_A_ROW - 1)
        recovery.after_report(None, [{}], Checkpoint.from_directory(str(tmp_path)))
    assert {note.reason for note in board.notes} == {"a worker died"}
    with pytest.raises(TrainingError, match="3 times without reaching a checkpoint, the last time with: a worker died"):
        starts_in_vain(starts, failed, LOSSES_IN_A_ROW)


class Wrapped(Exception):
    """As Ray wraps what a worker raised."""

    def __init__(self, inner: Exception) -> None:
        self._base_exc = inner


@pytest.mark.parametrize("error", [DataError("bad"), ConfigError("odd"), TrainingError("nan")])
def test_what_the_user_has_to_mend_ends_the_run(error: MaagError) -> None:
    board = FakeBoard()
    with pytest.raises(type(error)) as raised:
        losses(Recovery(board), 1, Wrapped(error))
    assert raised.value is error
    assert not board.notes
    assert cause_of(Wrapped(Wrapped(error))) is error


@pytest.mark.parametrize("error", [DataError("bad"), OutOfTimeError("no step was taken; go on with --resume")])
def test_what_says_how_to_go_on_is_told_as_it_is(error: MaagError) -> None:
    with pytest.raises(type(error)) as raised:
        give_up(Wrapped(error))
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TrainingError("the loss became nan"), "the loss became nan; Ray's logs are in /"),
        (RuntimeError("no more\nat all"), "the cluster failed (no more); Ray's logs are in /"),
    ],
)
def test_what_ended_a_run_says_where_to_look_and_how_to_go_on(error: Exception, told: str) -> None:
    with pytest.raises(TrainingError) as raised:
        give_up(Wrapped(error))
    assert str(raised.value).startswith(told)
    assert str(raised.value).endswith(", and --resume continues from the last checkpoint")
