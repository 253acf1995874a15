"""The data sets that maag reads. A new one needs a module with a Reader, and a line here."""

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
"""By data set, `module:class` of its Reader, which is imported only when it is needed."""

OWN_LAYOUTS: Final = ("nnunet", "folders")
"""Layouts for the user's own files; the other data sets are published ones."""


@cache
def reader_of(dataset: str) -> Reader:
    """The reader of `dataset`. Raises ConfigError for an unknown one."""
    if dataset not in READERS:
        raise ConfigError(f"data set {dataset!r} is unknown; known are {', '.join(READERS)}")
    module, _, name = READERS[dataset].partition(":")
    return cast("Reader", getattr(import_module(module), name)())


def preset(dataset: str, name: str, directory: Path | None = None) -> Config:
    """The configuration of preset `name` for `dataset`.

    Args:
        dataset: a name in READERS.
        name: paper, best, fast or best-fast.
        directory: the data set's folder, for settings that the data determine, such as classes.

    Raises:
        ConfigError: unknown data set or preset.
        DataError: the folder's own description cannot be used.
    """
    from maag.config.presets import apply_preset

    reader = reader_of(dataset)
    from_data: Mapping[str, Any] = reader.settings(directory) if directory and directory.is_dir() else {}
    defaults = {"data.dataset": dataset, **reader.defaults, **from_data}
    return apply_preset(name, defaults, reader.preset_settings.get(name, {}))


def find_cases(data: DataConfig, directory: Path, scribbles: Sequence[str] = ()) -> tuple[Case, ...]:
    """All cases of `data.dataset` in `directory`, sorted by id.

    Args:
        data: names the data set.
        directory: the data set's folder.
        scribbles: sources of scribbles, as `attach_scribbles` takes them; empty: the data set's default.

    Raises:
        ConfigError: unknown data set or source of scribbles.
        MissingDataError: no such folder, or nothing of the layout in it.
        DataError: two files are the same case, or the data set assigns a patient to two parts.
    """
    from maag.data.scribbles.sources import attach_scribbles

    reader = reader_of(data.dataset)
    if not directory.is_dir():
        raise MissingDataError(f"{directory}: no such folder; {missing_data_hint(data.dataset, directory)}")
    cases = reader.find_cases(directory, data)
    if not cases:
        raise MissingDataError(
            f"{directory}: no case of {data.dataset} in it; {missing_data_hint(data.dataset, directory)}"
        )
    known: dict[str, Case] = {}
    for case in cases:
        other = known.setdefault(case.case_id, case)
        if other is not case:
            raise DataError(
                f"{directory}: case {case.case_id} is there twice, as {other.images[0]} and {case.images[0]}; keep one "
                "of them"
            )
    _require_one_part(cases, directory)
    return attach_scribbles(cases, scribbles or (reader.default_scribbles,), seed=data.scribble_seed)


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
        StorageError: `out` is not empty, or cannot be written.
    """
    from maag.data.cases import PhantomWriter

    reader = reader_of(dataset)
    if not isinstance(reader, PhantomWriter):
        raise ConfigError(
            f"data set {dataset!r} has no phantom: its reader {type(reader).__name__} has no write_phantom; add that "
            "method, or use another data set's phantom"
        )
    require_empty_directory(out)
    reader.write_phantom(out, num_cases, seed)


def missing_data_hint(dataset: str, directory: Path) -> str:
    """The expected layout, and how to make a phantom where there is one; for errors about missing data."""
    from maag.data.cases import PhantomWriter

    reader = reader_of(dataset)
    if not isinstance(reader, PhantomWriter):
        return f"expected {reader.layout}"
    place = shlex.quote(str(_free_place(dataset, directory)))
    return f"expected {reader.layout}; `maag data phantom --dataset {dataset} --out {place}` makes synthetic data"


def _free_place(dataset: str, directory: Path) -> Path:
    """A place for a phantom: `directory`, or a new folder beside it where `directory` is not empty."""
    name = f"{dataset}-phantom"
    others = (directory.parent / f"{name}-{number}" for number in count(2))
    try:
        return next(filter(is_free, chain([directory, directory.parent / name], others)))
    except StorageError:
        return Path(name)  # in the working folder, as the other folder cannot be listed
