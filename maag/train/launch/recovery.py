"""What to do when workers fail: tell of it, go on after a loss, and give up on what would only fail again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import ray
from ray.train import Checkpoint, UserCallback

from maag.errors import DeviceMemoryError, MaagError, OutOfTimeError, TrainingError, first_line
from maag.train.launch.board import Lost
from maag.train.launch.connection import LOGS

LOSSES_IN_A_ROW = 3
"""Without a checkpoint in between, after which it is no bad luck."""
TRIES_FOR_ROOM = 40
"""In a row, of a minute each."""


class Recovery(UserCallback):  # type: ignore[misc]
    """A callback of Ray Train's controller; an error raised here ends the run instead of another attempt."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._losses = 0

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Ray Train's, after each report of all workers."""
        if checkpoint is not None:
            self._losses = 0

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, BaseException]) -> None:
        """Ray Train's, after workers failed.

        Raises:
            MaagError: it is the user's to mend.
            TrainingError: workers were lost three times without getting to a checkpoint.
        """
        errors = [cause_of(error) for _, error in sorted(worker_exceptions.items())]
        for error in errors:
            # What a node's memory did not hold, shared with others as it may be, another try may.
            if isinstance(error, MaagError) and not isinstance(error, DeviceMemoryError):
                raise error
        self._losses += 1
        reason = _most_telling(errors)
        if self._losses >= LOSSES_IN_A_ROW:
            raise TrainingError(
                f"workers failed {self._losses} times without getting to a checkpoint, at last with: {reason}"
            )
        self._board.put.remote(Lost(reason))


def give_up(end: BaseException) -> NoReturn:
    """End as the user is to read it, for `end`, what Ray Train ended with.

    Raises:
        MaagError: it is the user's to mend.
        TrainingError: anything else; where to look, and how to go on.
    """
    cause, goes_on = cause_of(end), f"Ray's logs are in {LOGS}, and --resume goes on from the last checkpoint"
    if isinstance(cause, TrainingError) and not isinstance(cause, OutOfTimeError):
        raise TrainingError(f"{cause}; {goes_on}")
    if isinstance(cause, MaagError):
        raise cause
    raise TrainingError(f"the cluster failed ({first_line(cause)}); {goes_on}") from end


def cause_of(error: BaseException) -> BaseException:
    """The error as the worker raised it, without Ray's wrapping."""
    for name in ("_base_exc", "health_check_failure", "controller_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return cause_of(inner)
    return error


def _most_telling(errors: list[BaseException]) -> str:
    """In a line: a worker's death rather than the broken connections that it left with the others."""
    deaths = [error for error in errors if isinstance(error, ray.exceptions.RayActorError)]
    first = (deaths or errors)[0]
    lines = [line.strip() for line in str(first).splitlines() if line.strip()]
    if isinstance(first, ray.exceptions.RayActorError):
        return "a worker died" + (", its node was taken away" if first.preempted else "")
    return f"{type(first).__name__}: {lines[0] if lines else 'no message'}"
