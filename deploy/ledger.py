"""The ledger of a batch: what became of each volume, one JSON object a line, only ever added to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from maag.errors import ConfigError
from maag.storage import storage_errors

LEDGER = "ledger.jsonl"
FORMAT_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the ledger: one attempt at one volume."""

    format_version: int = FORMAT_VERSION
    source: str
    target: str
    """Relative to the output folder, with `/`."""
    sha256: str | None
    """Of the source; None where it could not be read."""
    model: str
    """Digest of the model."""
    seconds: float
    error: str | None
    """One sentence; None where the labels were written."""
    volumes_ml: tuple[dict[str, float], ...] = ()
    """For each frame: millilitres by foreground class."""


def read_finished(ledger: Path) -> dict[str, Entry]:
    """By target: its last attempt, where that succeeded."""
    finished: dict[str, Entry] = {}
    if not ledger.exists():
        return finished
    with storage_errors(ledger, "read"):
        lines = ledger.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        try:
            plain = json.loads(line)
            version = plain["format_version"]
            entry = Entry(**plain) if version == FORMAT_VERSION else None
        except (ValueError, KeyError, TypeError):
            continue  # A line cut off by a crash: at worst its volume is done once more.
        if entry is None:
            raise ConfigError(f"{ledger}: format_version {version} is unknown; choose another output folder")
        finished.pop(entry.target, None)
        if entry.error is None:
            finished[entry.target] = entry
    return finished


def end_last_line(ledger: Path) -> None:
    """End a line that a crash has cut off, so that the next one is whole."""
    with storage_errors(ledger):
        if ledger.exists() and (content := ledger.read_bytes()) and not content.endswith(b"\n"):
            with ledger.open("ab") as stream:
                stream.write(b"\n")


def append(ledger: Path, entry: Entry) -> None:
    """Add one line, at once. Raises StorageError."""
    with storage_errors(ledger), ledger.open("ab") as stream:
        stream.write(json.dumps(asdict(entry), allow_nan=False).encode() + b"\n")
        stream.flush()
