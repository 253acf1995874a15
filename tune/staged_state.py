"""Repair of Ray Tune's saved state of a search after a kill.

Ray writes its state to a staging folder on this machine, and copies it from there to the search's folder, file by file
and in place: a kill can cut off one of the two, never both.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from maag.errors import StorageError
from maag.storage import replacing, storage_errors


def newest_state(experiment: Path) -> Path | None:
    """The newest saved state of the search in the folder `experiment`; None if there is none."""
    return max(experiment.glob("experiment_state-*.json"), default=None, key=lambda path: path.name)


def make_whole(experiment: Path) -> None:
    """Copy Ray's staged state to the folder `experiment`, if it is complete and still on this machine.

    Raises StorageError if neither copy is complete, or a file cannot be written.
    """
    newest = newest_state(experiment)
    if newest is None:
        return
    staged = _staged(experiment, newest.name)
    if staged is None:
        if not _is_whole(newest):
            raise StorageError(
                f"{newest}: Ray's state of this search was cut off by a kill, and this machine has no other copy; "
                "trials.csv has the finished trials, and a new search needs another --out"
            )
        return
    with storage_errors(experiment):
        for path in staged.iterdir():
            if path.is_file():
                with replacing(experiment / path.name) as temporary:
                    shutil.copyfile(path, temporary)


def _staged(experiment: Path, name: str) -> Path | None:
    """The folder where Ray last staged the state `name` of this search, if it is complete."""
    root = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    folders = root.glob(f"session_[0-9]*/artifacts/*/{experiment.name}/driver_artifacts")
    states = [
        folder / name for folder in folders if _is_whole(folder / name) and _are_of_one_search(folder, experiment)
    ]
    return max(states, key=lambda path: path.stat().st_mtime_ns).parent if states else None


def _are_of_one_search(staged: Path, experiment: Path) -> bool:
    """Whether both have a trial in common: states of other searches may have the same name and time."""
    return any(path.is_dir() and (experiment / path.name).is_dir() for path in staged.iterdir())


def _is_whole(state: Path) -> bool:
    try:
        json.loads(state.read_bytes())
    except (OSError, ValueError):
        return False
    return True
