"""The data sets that maag reads. A new one is one module with a Reader, and one line here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from maag.errors import ConfigError, DataError, MissingDataError, StorageError
from maag.storage import is_free, require_empty_directory

if TYPE_CHECKING:
    from maag.config.data import DataConfig
    from maag.config.schema import Config
    from maag.data.cases import Case, Reader

READERS: Final[Mapping[str, str]] = {
    "acdc": "maag.data.datasets.acdc:AcdcReader",
    "lvsc": "maag.data.datasets.lvsc:LvscReader",
    "chaos": "maag.data.datasets.chaos:ChaosReader",
    "chaos-ct": "maag.data.datasets.chaos:ChaosCtReader",
    "ppss": "maag.data.datasets.ppss:PpssReader",
    "nnunet": "maag.data.datasets.nnunet:NnunetReader",
    "folders": "maag.data.datasets.folders:FoldersReader",
}
"""By name of the data set, where its Reader is; loaded when asked for, so that the names cost nothing."""

OWN_LAYOUTS: Final = ("nnunet", "folders")
"""Those that people lay their own files out in; the others were published."""


@cache
def reader_of(dataset: str) -> Reader:
    """The reader of `dataset`. Raises ConfigError naming the known ones."""
    if dataset not in READERS:
        raise ConfigError(f"data set {dataset!r} is unknown; known are {', '.join(READERS)}")
    module, _, name = READERS[dataset].partition(":")
    return cast("Reader", getattr(import_module(module), name)())


def preset(dataset: str, name: str, directory: Path | None = None) -> Config:
    """The configuration of preset `name` for `dataset`.

    Args:
        dataset: a name in READERS.
        name: paper, fast or best.
        directory: the data set's folder; settings that the data tell, such as classes, are taken from there.

    Raises:
        ConfigError: an unknown name.
        DataError: a description in the folder that cannot be used.
    """
    from maag.config.presets import apply_preset

    reader = reader_of(dataset)
    from_data: Mapping[str, Any] = reader.settings(directory) if directory and directory.is_dir() else {}
    defaults = {"data.dataset": dataset, **reader.defaults, **from_data}
    return apply_preset(name, defaults, reader.in_presets.get(name, {}))


def find_cases(data: DataConfig, directory: Path, scribbles: Sequence[str] = ()) -> tuple[Case, ...]:
    """All cases of `data.dataset` in `directory`, sorted by id.

    Args:
        data: names the data set.
        directory: the data set's folder.
        scribbles: where scribbles come from, one word for each rater; see `attach_scribbles`. None: the usual ones.

    Raises:
        ConfigError: unknown data set, or a word that is no source of scribbles.
        MissingDataError: no such folder, or nothing of the layout in it.
        DataError: two files claim to be the same case, or the data set puts a patient into two parts.
    """
    from maag.data.scribbles.sources import attach_scribbles

    reader = reader_of(data.dataset)
    if not directory.is_dir():
        raise MissingDataError(f"{directory}: no such folder; {way_out(data.dataset, directory)}")
    cases = reader.find_cases(directory, data)
    if not cases:
        raise MissingDataError(f"{directory}: no case of {data.dataset} in it; {way_out(data.dataset, directory)}")
    known: dict[str, Case] = {}
    for case in cases:
        other = known.setdefault(case.case_id, case)
        if other is not case:
            raise DataError(
                f"{directory}: case {case.case_id} is there more than once, as {other.images[0]} and {case.images[0]}; "
                "keep one copy of it"
            )
    _require_one_part(cases, directory)
    return attach_scribbles(cases, scribbles or (reader.usual_scribbles,), seed=data.scribble_seed)


def _require_one_part(cases: Iterable[Case], directory: Path) -> None:
    first: dict[str, Case] = {}
    for case in (case for case in cases if case.part):
        other = first.setdefault(case.patient_id, case)
        if other.part != case.part:
            raise DataError(
                f"{directory}: patient {case.patient_id} has case {other.case_id} in {other.part}, case {case.case_id} "
                f"in {case.part}; all cases of a patient belong in one part"
            )


def write_phantom(dataset: str, out: Path, num_cases: int, seed: int) -> None:
    """Write synthetic patients of `dataset` to `out`.

    Raises:
        ConfigError: unknown data set, or one that has no phantom.
        StorageError: `out` holds something already, or cannot be written.
    """
    from maag.data.cases import PhantomWriter

    reader = reader_of(dataset)
    if not isinstance(reader, PhantomWriter):
        raise ConfigError(
            f"data set {dataset!r} has no phantom: its reader {type(reader).__name__} has no write_phantom; write that "
            "method, or take the phantom of another data set"
        )
    require_empty_directory(out)
    reader.write_phantom(out, num_cases, seed)


def way_out(dataset: str, directory: Path) -> str:
    """What to do when the data are not there: the layout expected, and how to make a stand-in, if there is one."""
    from maag.data.cases import PhantomWriter

    reader = reader_of(dataset)
    if not isinstance(reader, PhantomWriter):
        return f"expected {reader.layout}"
    place = shlex.quote(str(_free_place(dataset, directory)))
    return f"expected {reader.layout}; `maag data phantom --dataset {dataset} --out {place}` makes a stand-in"


def _free_place(dataset: str, directory: Path) -> Path:
    """Where a phantom may be written: `directory`, or where something is in it already, a new folder beside it."""
    name = f"{dataset}-phantom"
    others = (directory.parent / f"{name}-{number}" for number in count(2))
    try:
        return next(filter(is_free, chain([directory, directory.parent / name], others)))
    except StorageError:
        return Path(name)  # in the working folder, for what is there cannot be seen
