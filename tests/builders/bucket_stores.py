"""Stores in buckets on local servers that can inject faults."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from faults import FaultMiddleware
from gs_az_servers import az_server, gs_server
from s3_server import s3_server

from maag.storage.retries import Retries
from maag.storage.store import Store

FAST_RETRIES = Retries(attempts=4, first_wait_s=0.005, longest_wait_s=0.02, connect_timeout_s=5.0, read_timeout_s=5.0)
SERVERS: dict[str, Callable[[], AbstractContextManager[tuple[FaultMiddleware, dict[str, str]]]]] = {
    "s3": s3_server,
    "gs": gs_server,
    "az": az_server,
}


@dataclass
class CloudLocation:
    """A store under a prefix of a bucket, and the server of that bucket."""

    store: Store
    server: FaultMiddleware
    scheme: str
    prefix: str

    def key(self, key: str) -> str:
        """The key within the bucket."""
        return f"{self.prefix}/{key}"


def file_names(folder: Path) -> list[str]:
    """Sorted names of the entries of a folder."""
    return sorted(path.name for path in folder.iterdir())
