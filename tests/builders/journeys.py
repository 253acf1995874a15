"""Commands as a user types them, watched line by line."""

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
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

CALM = tuple(f"--set=optim.{rate}" for rate in ("lr=1e-5", "lr_min=1e-6", "lr_discriminator=1e-5"))
"""Rates at which training does not amplify rounding, so that runs can be compared to the end."""


class Command:
    """`maag WORDS` as a process of its own."""

    unended: ClassVar[list[Command]] = []
    """Those whose end nobody has seen."""

    def __init__(self, *words: object, environment: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._unseen: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "maag", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.unended.append(self)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def text(self) -> str:
        """All of standard error so far."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout_s: float = 180) -> str:
        """The next line of standard error in which `pattern` is found."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                line = self._unseen.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {pattern!r} in {timeout_s} s:\n{self.text}") from None
            if re.search(pattern, line):
                return line

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def end(self, timeout_s: float = 240) -> tuple[int, str]:
        """Exit code and standard output, once it ended."""
        assert self._process.stdout is not None
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"still running after {timeout_s} s:\n{self.text}") from None
        self._reader.join(10)
        if self in self.unended:
            self.unended.remove(self)
        with self._process.stdout as stdout:
            return code, stdout.read()

    def abandon(self) -> None:
        """Kill it with all that it started, if it runs still: what is left of a failed test must not meet the next."""
        below = psutil.Process(self.pid).children(recursive=True) if self._process.poll() is None else []
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self.end()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in stderr:
                self.lines.append(line.rstrip("\n"))
                self._unseen.put(self.lines[-1])


def history(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def require_same_data(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Equal but for rounding, which the order of sums over workers changes, of runs that are CALM.

    Rounding alone moved losses by up to 4.5e-5 of themselves, optimisers that forgot by 4e-3 and more. Where `found`
    stopped within an epoch it has one more line, and losses are means over the steps since the line before.
    """
    steps = [0, *(line["step"] for line in expected)]
    for before, line in zip(steps, expected, strict=False):
        parts = [part for part in found if before < part["step"] <= line["step"]]
        assert parts[-1]["step"] == line["step"]
        assert parts[-1]["mean_dice"] == pytest.approx(line["mean_dice"], abs=5e-3)
        ends = [before, *(part["step"] for part in parts)]
        for name, loss in line["losses"].items():
            total = sum(
                part["losses"][name] * (end - start) for part, (start, end) in zip(parts, pairwise(ends), strict=True)
            )
            assert total / (ends[-1] - before) == pytest.approx(loss, rel=1e-3), (line["step"], name)
    assert found[-1]["step"] == steps[-1]
