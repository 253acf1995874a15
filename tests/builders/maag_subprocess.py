"""`maag` commands run as subprocesses, with their standard error read line by line."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

LOW_LEARNING_RATES = tuple(f"--set=optim.{rate}" for rate in ("lr=1e-5", "lr_min=1e-6", "lr_discriminator=1e-5"))
"""Options with learning rates so low that training does not amplify rounding and whole runs can be compared."""


class Command:
    """`maag ARGUMENTS` in a subprocess."""

    running: ClassVar[list[Command]] = []
    """Commands whose exit no caller has awaited yet."""

    def __init__(self, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._unread: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "maag", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.running.append(self)

    @property
    def pid(self) -> int:
        """ID of the process."""
        return self._process.pid

    @property
    def stderr(self) -> str:
        """Standard error so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, timeout_s: float = 180) -> str:
        """The next line of standard error that contains a match of `pattern`."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                line = self._unread.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {pattern!r} in {timeout_s} s:\n{self.stderr}") from None
            if re.search(pattern, line):
                return line

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def wait_for_exit(self, timeout_s: float = 240) -> tuple[int, str]:
        """Wait for the process to exit; its exit code and standard output."""
        assert self._process.stdout is not None
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"still running after {timeout_s} s:\n{self.stderr}") from None
        self._reader.join(10)
        if self in self.running:
            self.running.remove(self)
        with self._process.stdout as stdout:
            return code, stdout.read()

    def kill_tree(self) -> None:
        """Kill the process, if it still runs, and its descendants, which would disturb the next test."""
        descendants = psutil.Process(self.pid).children(recursive=True) if self._process.poll() is None else []
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self.wait_for_exit()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in stderr:
                self.lines.append(line.rstrip("\n"))
                self._unread.put(self.lines[-1])


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_metrics(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Assert that the metrics of two runs with LOW_LEARNING_RATES are equal but for rounding.

    Rounding, which depends on the order of sums over workers, changed losses by up to 4.5e-5 of their value; optimisers
    that lost their state changed them by 4e-3 or more. Where `actual` stopped within an epoch it has an extra entry;
    losses are means over the steps since the previous entry.
    """
    steps = [0, *(line["step"] for line in expected)]
    for before, line in zip(steps, expected, strict=False):
        parts = [part for part in actual if before < part["step"] <= line["step"]]
        assert parts[-1]["step"] == line["step"]
        assert parts[-1]["mean_dice"] == pytest.approx(line["mean_dice"], abs=5e-3)
        ends = [before, *(part["step"] for part in parts)]
        for name, loss in line["losses"].items():
            total = sum(
                part["losses"][name] * (end - start) for part, (start, end) in zip(parts, pairwise(ends), strict=True)
            )
            assert total / (ends[-1] - before) == pytest.approx(loss, rel=1e-3), (line["step"], name)
    assert actual[-1]["step"] == steps[-1]


def wait_until(condition: Callable[[], object], timeout_s: float = 120, context: Callable[[], str] = str) -> None:
    """Wait until the condition is true; if it is not in time, fail with what `context` returns then."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, context()
        time.sleep(0.02)
