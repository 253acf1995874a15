"""Trials that fail by their settings: Ray tries again what failed, which mends a lost node, but not them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maag.config import codec
from maag.config.schema import Config
from maag.errors import NotFiniteError
from maag.storage import read_json, write_json

MOST = 3
"""How often a trial is tried again, each time from its own last checkpoint."""
_FILE = "failure.json"


@contextmanager
def remembering_failure(run: Path, config: Config) -> Iterator[None]:
    """Note in the folder `run` that a loss of this `config` becomes no number, and say so at once the next time.

    All else may be the node's or the moment's: no compiler, no room in memory.

    Raises NotFiniteError where it was noted.
    """
    noted, digest = run / _FILE, codec.digest(config)
    if noted.exists() and (before := read_json(noted))["config_digest"] == digest:
        raise NotFiniteError(before["error"])
    try:
        yield
    except NotFiniteError as error:
        write_json(noted, {"config_digest": digest, "error": str(error)})
        raise
