"""The data sets that maag reads. A new one is one module with a Reader, and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from maag.data.acdc import AcdcReader
from maag.data.cases import Case, Reader
from maag.errors import ConfigError, DataError, MissingDataError, StorageError

READERS: Final[Mapping[str, Reader]] = {
    "acdc": AcdcReader(),
}


def reader_of(dataset: str) -> Reader:
    """The reader of `dataset`. Raises ConfigError naming the known ones."""
    if dataset not in READERS:
        raise ConfigError(f"data set {dataset!r} is unknown; known are {', '.join(READERS)}")
    return READERS[dataset]


def find_cases(dataset: str, directory: Path, scribbles: Path | None = None) -> tuple[Case, ...]:
    """All cases of `dataset` in `directory`, sorted by id.

    Args:
        dataset: a name in READERS.
        directory: the data set's folder.
        scribbles: a further folder to look for scribble files in.

    Raises:
        ConfigError: unknown data set.
        MissingDataError: no such folder, or nothing of the layout in it.
        DataError: two files claim to be the same case.
    """
    reader = reader_of(dataset)
    for folder in (directory, scribbles):
        if folder is not None and not folder.is_dir():
            raise MissingDataError(f"{folder}: no such folder; {_way_out(dataset, directory)}")
    cases = reader.find_cases(directory, scribbles)
    if not cases:
        raise MissingDataError(f"{directory}: no case of {dataset} in it; {_way_out(dataset, directory)}")
    twice = {case.case_id for case in cases if sum(other.case_id == case.case_id for other in cases) > 1}
    if twice:
        raise DataError(f"{directory}: case {min(twice)} is there more than once; keep one copy of it")
    return cases


def write_phantom(dataset: str, out: Path, num_cases: int, seed: int) -> None:
    """Write synthetic patients of `dataset` to `out`.

    Raises:
        ConfigError: unknown data set.
        StorageError: `out` holds something already, or cannot be written.
    """
    reader = reader_of(dataset)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"cannot write {out}: it is there and not empty; choose a new folder")
    reader.write_phantom(out, num_cases, seed)


def _way_out(dataset: str, directory: Path) -> str:
    stand_in = f"`maag data phantom --dataset {dataset} --out {directory}` makes a stand-in"
    return f"expected {READERS[dataset].layout}; {stand_in}"
