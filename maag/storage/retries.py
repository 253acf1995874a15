"""The retry policy of storage requests."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP status codes that are worth a retry."""


@dataclass(frozen=True, slots=True)
class Retries:
    """Bounded exponential back-off with jitter."""

    attempts: int = 6
    """At most, of one request, and of one download."""
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    """Longest time without any data."""

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after failed attempt 1, 2, …: doubled each time, times a random factor in [0.5, 1]."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)

    def rounds(self) -> Iterator[bool]:
        """Yield once per attempt, after waiting before each but the first; True for the last."""
        for attempt in range(1, self.attempts):
            yield False
            time.sleep(self.wait_s(attempt))
        yield True
