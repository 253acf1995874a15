"""Trials that fail because of their settings, which Ray's retries, meant for lost nodes, cannot help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maag.config import codec
from maag.config.schema import Config
from maag.errors import NotFiniteError
from maag.storage import read_json, write_json

MAX_RETRIES = 3
"""Of a trial, unless the plan of the search says otherwise."""
_FILE = "failure.json"


@contextmanager
def remembering_failure(run: Path, config: Config) -> Iterator[None]:
    """Record in the folder `run` that training with `config` became NaN or infinite, and fail at once the next time.

    Other errors may depend on the node or the moment: a missing compiler, full memory.

    Raises NotFiniteError if it was recorded before.
    """
    noted, digest = run / _FILE, codec.digest(config)
    if noted.exists() and (before := read_json(noted))["config_digest"] == digest:
        raise NotFiniteError(before["error"])
    try:
        yield
    except NotFiniteError as error:
        write_json(noted, {"config_digest": digest, "error": str(error)})
        raise
