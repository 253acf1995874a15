"""Recovery of workers: losses, times without room, and errors that end a run."""

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
from maag.train.launch.notes import Lost, NoteBoard, Waiting
from maag.train.launch.recovery import LOSSES_IN_A_ROW, TRIES_FOR_ROOM, Recovery, cause_of, give_up
from maag.train.launch.starts import Starts


class FakeBoard(NoteBoard):
    """A board without an actor."""

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def put(self, note: Any) -> None:
        self.notes.append(note)


def report_losses(recovery: Recovery, times: int, error: Exception) -> None:
    for _ in range(times):
        recovery.after_exception(None, {0: RuntimeError("Connection closed by peer"), 1: error})


def test_worker_losses_are_reported_and_training_continues(tmp_path: Path) -> None:
    board = FakeBoard()
    recovery = Recovery(board)
    stored = Checkpoint.from_directory(str(tmp_path))
    for _ in range(4):
        report_losses(recovery, LOSSES_IN_A_ROW - 1, ray.exceptions.RayActorError())
        recovery.after_report(None, [{}], stored)
    assert {note.reason for note in board.notes} == {"a worker died"}
    report_losses(recovery, 1, RuntimeError("something else"))
    assert board.notes[-1] == Lost("RuntimeError: Connection closed by peer")


def test_repeated_losses_without_a_checkpoint_end_the_run() -> None:
    recovery = Recovery(FakeBoard())
    report_losses(recovery, LOSSES_IN_A_ROW - 1, ray.exceptions.RayActorError())
    recovery.after_report(None, [{}], None)
    with pytest.raises(TrainingError, match="3 times without reaching a checkpoint, the last time with: a worker died"):
        report_losses(recovery, 1, ray.exceptions.RayActorError())


def test_preempted_nodes_do_not_count_as_losses() -> None:
    board = FakeBoard()
    recovery = Recovery(board)
    died, preempted = ray.exceptions.RayActorError(), ray.exceptions.RayActorError(preempted=True)
    for _ in range(2 * LOSSES_IN_A_ROW):
        recovery.after_exception(None, {0: RuntimeError("Connection closed by peer"), 1: died, 2: preempted})
    assert {note.reason for note in board.notes} == {"a worker died, its node was preempted"}
    report_losses(recovery, LOSSES_IN_A_ROW - 1, died)
    with pytest.raises(TrainingError, match="3 times"):
        report_losses(recovery, 1, died)


def test_full_device_memory_is_retried_like_other_losses() -> None:
    board = FakeBoard()
    recovery = Recovery(board)
    full = {0: DeviceMemoryError("cuda: its memory does not hold training; take less")}
    for _ in range(LOSSES_IN_A_ROW - 1):
        recovery.after_exception(None, full)
    assert len(board.notes) == LOSSES_IN_A_ROW - 1
    with pytest.raises(TrainingError, match=r"3 times .*, the last time with: .* not hold training; take less"):
        recovery.after_exception(None, full)


def fail_to_start(starts: Starts, error: Exception, times: int) -> None:
    for _ in range(times):
        starts.after_controller_state_update(None, ReschedulingState(ControllerError(error)))


def test_a_wait_for_room_is_reported_once_and_limited() -> None:
    board = FakeBoard()
    starts = Starts(board, Recovery(board))
    for spell in range(1, 5):
        fail_to_start(starts, WorkerGroupStartupTimeoutError(2), TRIES_FOR_ROOM - 1)
        assert board.notes == [Waiting()] * spell
        starts.after_controller_state_update(None, RunningState())
    with pytest.raises(TrainingError, match="no room for the workers for 40 minutes"):
        fail_to_start(starts, WorkerGroupStartupTimeoutError(2), TRIES_FOR_ROOM)


def test_workers_that_fail_at_startup_count_as_losses(tmp_path: Path) -> None:
    board = FakeBoard()
    starts = Starts(board, recovery := Recovery(board))
    failed = WorkerGroupStartupFailedError("One of the worker actors failed to initialize due to error:\n...")
    failed.__cause__ = ray.exceptions.RayActorError()
    for _ in range(4):
        fail_to_start(starts, failed, LOSSES_IN_A_ROW - 1)
        recovery.after_report(None, [{}], Checkpoint.from_directory(str(tmp_path)))
    assert {note.reason for note in board.notes} == {"a worker died"}
    with pytest.raises(TrainingError, match="3 times without reaching a checkpoint, the last time with: a worker died"):
        fail_to_start(starts, failed, LOSSES_IN_A_ROW)


class Wrapped(Exception):
    """As Ray wraps what a worker raised."""

    def __init__(self, inner: Exception) -> None:
        self._base_exc = inner


@pytest.mark.parametrize("error", [DataError("bad"), ConfigError("odd"), TrainingError("nan")])
def test_errors_that_the_user_must_fix_end_the_run(error: MaagError) -> None:
    board = FakeBoard()
    with pytest.raises(type(error)) as raised:
        report_losses(Recovery(board), 1, Wrapped(error))
    assert raised.value is error
    assert not board.notes
    assert cause_of(Wrapped(Wrapped(error))) is error


@pytest.mark.parametrize("error", [DataError("bad"), OutOfTimeError("no step was taken; go on with --resume")])
def test_actionable_errors_are_raised_unchanged(error: MaagError) -> None:
    with pytest.raises(type(error)) as raised:
        give_up(Wrapped(error))
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TrainingError("the loss became nan"), "the loss became nan; Ray's logs are in /"),
        (RuntimeError("no more\nat all"), "the cluster failed (no more); Ray's logs are in /"),
    ],
)
def test_other_errors_name_the_logs_and_how_to_resume(error: Exception, message: str) -> None:
    with pytest.raises(TrainingError) as raised:
        give_up(Wrapped(error))
    assert str(raised.value).startswith(message)
    assert str(raised.value).endswith(", and --resume continues from the last checkpoint")
