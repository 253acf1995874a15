"""Places in buckets whose servers can be made to fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from clouds import az_server, gs_server
from faults import Gate
from s3 import s3_server

from maag.storage.retries import Retries
from maag.storage.store import Store

FAST = Retries(attempts=4, first_wait_s=0.005, longest_wait_s=0.02, connect_timeout_s=5.0, read_timeout_s=5.0)
SERVERS: dict[str, Callable[[], AbstractContextManager[tuple[Gate, dict[str, str]]]]] = {
    "s3": s3_server,
    "gs": gs_server,
    "az": az_server,
}


@dataclass
class Place:
    store: Store
    server: Gate
    scheme: str
    prefix: str

    def key(self, key: str) -> str:
        """As the server knows it."""
        return f"{self.prefix}/{key}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
