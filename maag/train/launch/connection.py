"""The connection to a Ray cluster."""

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
    """Connect to Ray at `address`, or start it here with `num_cpus` (None: all of this machine), for the block.

    Without an address no existing cluster is joined, even if one runs on this machine or RAY_ADDRESS names one, as in a
    job of `ray job submit`; the address `auto` joins it.

    Ray's own output is dropped, because standard output is for results: maag reports losses and recoveries itself, and
    Ray's logs hold the rest.

    Raises:
        ConfigError: no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not address:
        # Nobody announces that this machine will be preempted, and the actor that looks for it takes seconds of CPU.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    if address and address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: Ray Client is not supported; run maag with --address auto on a node of the "
            "cluster, directly or with `ray job submit`"
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
    """Restore the SIGTERM handler that Ray replaces: Ray's aborts, and maag's saves the state."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
