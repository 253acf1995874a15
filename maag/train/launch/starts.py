"""What to do when workers cannot start: wait for room, and finally give up. Uses internals of Ray Train."""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import ReschedulingState, RunningState

from maag.errors import TrainingError
from maag.train.launch.notes import NoteBoard, Waiting
from maag.train.launch.recovery import TRIES_FOR_ROOM, Recovery, cause_of


class Starts(ControllerCallback):  # type: ignore[misc]
    """Handles workers that could not start, which Ray Train does not report to a UserCallback.

    Ray's own limit on failed starts counts over the whole run, and would end a long run with many short waits for room.
    """

    def __init__(self, board: NoteBoard, recovery: Recovery) -> None:
        self._board = board
        self._recovery = recovery
        self._tries = 0

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Called by Ray Train at each change of the run's state.

        Raises:
            TrainingError: there was no room for too long, or an error of Recovery.
        """
        if isinstance(current_state, RunningState):
            self._tries = 0
        if not isinstance(current_state, ReschedulingState):
            return
        cause = cause_of(current_state.training_failed_error)
        if not isinstance(cause, WorkerGroupStartupTimeoutError):
            self._recovery.after_exception(None, {0: cause.__cause__ or cause})
            return
        self._tries += 1
        if self._tries >= TRIES_FOR_ROOM:
            raise TrainingError(f"the cluster had no room for the workers for {TRIES_FOR_ROOM} minutes")
        if self._tries == 1:
            self._board.put(Waiting())
