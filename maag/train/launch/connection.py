"""Being connected to a Ray cluster, quietly."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray

from maag.errors import ConfigError

LOGS = "/tmp/ray/session_latest/logs"
"""Where Ray keeps its logs on each node."""


@contextmanager
def connected(address: str | None, num_cpus: int | None = None) -> Iterator[None]:
    """Ray at `address`, or started here with `num_cpus` (None: those of this machine), until the end of the block.

    Without an address no cluster is joined, be it that one runs on this machine or that RAY_ADDRESS names one, as it
    does in a job of `ray job submit`: `auto` says to.

    What Ray prints meanwhile is dropped, for standard output belongs to results: the user hears of losses and
    recoveries from us, and Ray's logs hold the rest.

    Raises:
        ConfigError: no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address and address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: maag does not run over a Ray client; run it with --address auto on a node of the "
            "cluster, there or by `ray job submit`"
        )
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=address or "local",
                num_cpus=None if address else num_cpus,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"--address {address}: no Ray cluster answers there; start one with `ray start`"
            ) from error
        _handle_sigterm(on_sigterm)
        try:
            yield
        finally:
            ray.shutdown()
            _handle_sigterm(on_sigterm)


def _handle_sigterm(handler: Any) -> None:
    """Undo that Ray takes SIGTERM for itself, which would abort where others save."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
