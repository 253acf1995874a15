"""Time limits and signals that stop a run."""

from __future__ import annotations

import signal

import pytest

from maag.train.stopping import StopRequest, stopping_on_signals


def test_a_time_limit_is_in_minutes() -> None:
    now = 100.0
    request = StopRequest(max_minutes=2, clock=lambda: now)
    assert not request.out_of_time
    now += 119
    assert not request.out_of_time
    now += 1
    assert request.out_of_time
    assert StopRequest(max_minutes=0).out_of_time
    assert not StopRequest().out_of_time


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_requests_a_stop_and_the_second_ends_the_run(
    first: signal.Signals, second: signal.Signals
) -> None:
    def as_ctrl_c(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, as_ctrl_c)  # as the command installs it
    # Ignored in background processes of a script, which these tests may run in.
    on_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    request = StopRequest()
    try:
        with stopping_on_signals(request):
            signal.raise_signal(first)
            assert request.interrupted == first.name
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(second)
        assert signal.getsignal(signal.SIGTERM) is as_ctrl_c
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, on_interrupt)
