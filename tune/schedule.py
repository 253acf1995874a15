"""Which settings a trial had from which epoch on, where trials go on from each other's states with others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maag.storage import storage_errors, write_text

SCHEDULE = "schedule.jsonl"
"""A line for each change, in a trial's folder, and in the search's for the best of them."""


def read_schedule(path: Path) -> list[dict[str, Any]]:
    """The changes in the file `path`, of `from_epoch` and all `settings` each. Raises StorageError."""
    if not path.exists():
        return []
    with storage_errors(path, "read"):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def note_settings(path: Path, epochs_done: int, sample: Mapping[str, Any]) -> None:
    """Write down that after so many epochs the trial goes on with `sample`, unless it did so already.

    What the file has of later epochs belongs to a state that was given up. Raises StorageError.
    """
    lines = [line for line in read_schedule(path) if line["from_epoch"] <= epochs_done]
    if not lines or lines[-1]["settings"] != dict(sample):
        lines.append({"from_epoch": epochs_done + 1, "settings": dict(sample)})
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
