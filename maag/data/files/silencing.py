"""Loggers that are silent within a block."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


def make_silenceable(*names: str) -> None:
    """Let `silence` apply to the loggers of these names; those below them have to be named as well."""
    for name in names:
        logging.getLogger(name).addFilter(_is_audible)


@contextmanager
def silence() -> Iterator[None]:
    """Drop messages of silenceable loggers.

    Other threads are not affected, as they would be if levels were changed, which also clears the caches of all
    loggers.
    """
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def _is_audible(record: logging.LogRecord) -> bool:
    return not _SILENT.get()
