"""How often and how patiently something is asked of a storage again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""Answers of HTTP that are worth asking again."""


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential back-off with jitter, bounded."""

    attempts: int = 6
    """How often one request is sent, and how often one body is begun, at most."""
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    """How long nothing at all may arrive."""

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after attempt 1, 2, … has failed: twice as long each time, less up to a half by chance."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)

    def rounds(self) -> Iterator[bool]:
        """One for each attempt, with the wait before it; True for the last."""
        for attempt in range(1, self.attempts):
            yield False
            time.sleep(self.wait_s(attempt))
        yield True
