"""Messages of libraries are dropped within a block, in the thread of the block alone."""

from __future__ import annotations

import logging
import threading

import pytest

from maag.data.files.silencing import make_silenceable, silence

LOGGER = logging.getLogger("test_data_silencing")
make_silenceable(LOGGER.name)


def test_overlapping_blocks_of_two_threads_silence_only_themselves(caplog: pytest.LogCaptureFixture) -> None:
    entered, left = threading.Event(), threading.Event()

    def work() -> None:
        with silence():
            entered.set()
            assert left.wait(60)
            LOGGER.warning("other thread, inside")
        LOGGER.warning("other thread, outside")

    thread = threading.Thread(target=work)
    with silence():
        thread.start()
        assert entered.wait(60)
        LOGGER.warning("inside")
    LOGGER.warning("outside")
    left.set()
    thread.join()
    assert caplog.messages == ["outside", "other thread, outside"]


def test_an_error_ends_the_silence(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError), silence(), silence():
        raise KeyError
    LOGGER.warning("after")
    assert caplog.messages == ["after"]
