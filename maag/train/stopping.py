"""Requests to a running training: to end, at Ctrl-C, SIGTERM or a time limit, or to save."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether, and why, training should end after the current step.

    Args:
        max_minutes: the time limit, None for no limit.
        clock: the current time in seconds.
    """

    def __init__(self, max_minutes: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = None if max_minutes is None else clock() + 60 * max_minutes
        self._reason: str | None = None
        self.save_requested = False
        """Set it to have the state saved soon, at once if set within `on_epoch`; saving clears it."""

    def interrupt(self, reason: str) -> None:
        """Request the end after the current step."""
        self._reason = reason

    @property
    def interrupted(self) -> str | None:
        """The reason given to `interrupt`, if it was called."""
        return self._reason

    @property
    def out_of_time(self) -> bool:
        """Whether the time limit has passed."""
        return self._deadline is not None and self._clock() >= self._deadline


@contextmanager
def stopping_on_signals(request: StopRequest) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one has its usual effect."""

    def handle(number: int, frame: FrameType | None) -> None:
        request.interrupt(signal.Signals(number).name)
        for each, handler in previous.items():
            signal.signal(each, handler)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def restoring_sigint() -> Iterator[None]:
    """Restore the SIGINT handler after the body, which may replace it."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
