"""Locations of a search: its folder, and its storage if it has one."""

from __future__ import annotations

import os
from pathlib import Path

from pyarrow.fs import FileSystem, FileType
from ray import tune as ray_tune

from maag.errors import StorageError
from maag.train.launch.remote import absolute_storage, download, place_errors
from tune.results import measured_in
from tune.staged_state import make_whole

EXPERIMENT = "ray"
"""Ray Tune's folder in the search's folder, if there is no storage."""
TRIALS = "trials.csv"
BEGUN_WITH = ("search.json", "split.json")
"""Files of a search's folder that a resume needs."""


def ray_place(storage: str | None, out: Path) -> tuple[str, str]:
    """Storage path and experiment name of Ray Tune for the search in `out`."""
    return (os.path.abspath(out), EXPERIMENT) if storage is None else (absolute_storage(storage), out.name)


def beside(storage: str, out: Path) -> str:
    """Where the search's own files are in the storage."""
    return f"{absolute_storage(storage)}/{out.name}/search"


def fetch(storage: str, out: Path) -> None:
    """Copy the files that a resume needs from the storage to the search's folder `out`. Raises StorageError."""
    download(beside(storage, out), (*BEGUN_WITH, TRIALS), out)


def is_taken(storage: str, out: Path) -> bool:
    """Whether the storage has a search of this name. Raises StorageError."""
    place = beside(storage, out)
    with place_errors(place, "read"):
        filesystem, root = FileSystem.from_uri(place)
        if any(
            info.type == FileType.File for info in filesystem.get_file_info([f"{root}/{name}" for name in BEGUN_WITH])
        ):
            return True
    return bool(ray_tune.Tuner.can_restore("/".join(ray_place(storage, out))))


def can_resume(storage: str | None, out: Path) -> bool:
    """Whether Ray Tune has a state of the search to resume; a kill may have come before it wrote one.

    Raises StorageError if there is none although trials were measured, or the only one was cut off by a kill.
    """
    experiment = "/".join(ray_place(storage, out))
    if "://" not in experiment:  # Writes to buckets are atomic.
        make_whole(Path(experiment))
    if ray_tune.Tuner.can_restore(experiment):
        return True
    if measured := measured_in(out / TRIALS):
        raise StorageError(
            f"{experiment}: Ray's state of this search is missing, but {out / TRIALS} has {len(measured)} measured "
            "trials, which a restart would lose; restore it, or start a new search with another --out"
        )
    return False
