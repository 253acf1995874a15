"""Recovery from failing workers: report it, retry after a loss, and give up on errors that would only recur."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ray.exceptions import RayActorError
from ray.train import Checkpoint, UserCallback

from maag.errors import DeviceMemoryError, MaagError, OutOfTimeError, TrainingError, first_line
from maag.train.launch.connection import LOGS
from maag.train.launch.notes import Lost, NoteBoard

LOSSES_IN_A_ROW = 3
"""Failures without a checkpoint in between, after which the run ends; preempted nodes do not count."""
TRIES_FOR_ROOM = 40
"""Failed starts in a row for want of room, of a minute each, after which the run ends."""


class Recovery(UserCallback):  # type: ignore[misc]
    """A callback of Ray Train's controller; an error raised here ends the run, which is retried otherwise."""

    def __init__(self, board: NoteBoard) -> None:
        self._board = board
        self._losses = 0

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Called by Ray Train after each report of all workers."""
        if checkpoint is not None:
            self._losses = 0

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, BaseException]) -> None:
        """Called by Ray Train after workers failed.

        Raises:
            MaagError: an error that the user must fix.
            TrainingError: workers failed three times without reaching a checkpoint.
        """
        errors = [cause_of(error) for _, error in sorted(worker_exceptions.items())]
        for error in errors:
            # A retry may succeed when a device that others share has more free memory.
            if isinstance(error, MaagError) and not isinstance(error, DeviceMemoryError):
                raise error
        first = _most_telling(errors)
        reason = _reason(first)
        # As in Ray's own limits. The run is not at fault, and spot instances may be taken in quick succession.
        if not _is_preempted(first):
            self._losses += 1
        if self._losses >= LOSSES_IN_A_ROW:
            raise TrainingError(
                f"workers failed {self._losses} times without reaching a checkpoint, the last time with: {reason}"
            )
        self._board.put(Lost(reason))


def give_up(end: BaseException) -> NoReturn:
    """Raise the error to show to the user for `end`, the exception that ended Ray Train's run.

    Raises:
        MaagError: an error that the user must fix.
        TrainingError: any other; it names the logs and the way to continue.
    """
    cause, way_out = cause_of(end), f"Ray's logs are in {LOGS}, and --resume continues from the last checkpoint"
    if isinstance(cause, TrainingError) and not isinstance(cause, OutOfTimeError):
        raise TrainingError(f"{cause}; {way_out}")
    if isinstance(cause, MaagError):
        raise cause
    raise TrainingError(f"the cluster failed ({first_line(cause)}); {way_out}") from end


def cause_of(error: BaseException) -> BaseException:
    """The error that the worker raised, without Ray's wrappers."""
    for name in ("_base_exc", "health_check_failure", "controller_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return cause_of(inner)
    return error


def _most_telling(errors: list[BaseException]) -> BaseException:
    """A preemption, else the death of a worker, rather than the broken connections of others that follow from it."""
    return min(errors, key=lambda error: (not _is_preempted(error), not isinstance(error, RayActorError)))


def _is_preempted(error: BaseException) -> bool:
    return isinstance(error, RayActorError) and error.preempted


def _reason(error: BaseException) -> str:
    """One line."""
    if isinstance(error, RayActorError):
        return "a worker died" + (", its node was preempted" if error.preempted else "")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
