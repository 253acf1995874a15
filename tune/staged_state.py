"""Ray Tune's own state of a search, made whole after a kill.

Ray writes its state into a staging folder of this machine, and copies it from there to where the search lies, file by
file and in place: a kill leaves one of the two cut off, never both.
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
    """The file of what Ray knew last of the search in the folder `experiment`; None before the first."""
    return max(experiment.glob("experiment_state-*.json"), default=None, key=lambda path: path.name)


def make_whole(experiment: Path) -> None:
    """Bring what Ray staged of the search in the folder `experiment` there, if it is whole and still on this machine.

    Raises StorageError where neither is whole, or a file cannot be written.
    """
    newest = newest_state(experiment)
    if newest is None:
        return
    staged = _staged(experiment, newest.name)
    if staged is None:
        if not _is_whole(newest):
            raise StorageError(
                f"{newest}: a kill cut off Ray's state of this search, and this machine has no other; trials.csv has "
                "what is finished, and a new search needs another --out"
            )
        return
    with storage_errors(experiment):
        for path in staged.iterdir():
            if path.is_file():
                with replacing(experiment / path.name) as temporary:
                    shutil.copyfile(path, temporary)


def _staged(experiment: Path, name: str) -> Path | None:
    """Where Ray staged the state `name` of this search last, if that is whole."""
    root = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    folders = root.glob(f"session_[0-9]*/artifacts/*/{experiment.name}/driver_artifacts")
    states = [
        folder / name for folder in folders if _is_whole(folder / name) and _are_of_one_search(folder, experiment)
    ]
    return max(states, key=lambda path: path.stat().st_mtime_ns).parent if states else None


def _are_of_one_search(staged: Path, experiment: Path) -> bool:
    """Other searches may have the same name and second; the random names of trials tell."""
    return any(path.is_dir() and (experiment / path.name).is_dir() for path in staged.iterdir())


def _is_whole(state: Path) -> bool:
    try:
        json.loads(state.read_bytes())
    except (OSError, ValueError):
        return False
    return True
