"""The schedule of settings of a trial in population based training, where settings change during training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maag.storage import storage_errors, write_text

SCHEDULE = "schedule.jsonl"
"""A line per change, in a trial's folder and, for the best trial, in the search's folder."""


def read_schedule(path: Path) -> list[dict[str, Any]]:
    """The changes in the file `path`, each with `from_epoch` and all `settings`. Raises StorageError."""
    if not path.exists():
        return []
    with storage_errors(path, "read"):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def note_settings(path: Path, epochs_done: int, sample: Mapping[str, Any]) -> None:
    """Record that the trial continues with `sample` after `epochs_done` epochs, if that is a change.

    Entries of later epochs, which belong to an abandoned state, are removed. Raises StorageError.
    """
    lines = [line for line in read_schedule(path) if line["from_epoch"] <= epochs_done]
    if not lines or lines[-1]["settings"] != dict(sample):
        lines.append({"from_epoch": epochs_done + 1, "settings": dict(sample)})
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
