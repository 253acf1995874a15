"""Resolve options to a data folder, a complete configuration and a device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from maag.errors import ConfigError, DataError, MissingDataError, StorageError

if TYPE_CHECKING:
    import torch

    from maag.config.data import DataConfig
    from maag.config.schema import Config


def find_data(dataset: str, given: Path | None) -> Path:
    """The data set's folder: as given, else $MAAG_DATA/NAME, else data/NAME. Raises MissingDataError."""
    root = os.environ.get("MAAG_DATA")
    directory = given or (Path(root) / dataset if root else Path("data") / dataset)
    if not directory.is_dir():
        from maag.data.catalog import missing_data_hint

        raise MissingDataError(f"{directory}: no such folder; {missing_data_hint(dataset, directory)}")
    return directory


def absolute_source(source: str) -> str:
    """A value of `--scribbles` that means the same in another working directory and on another node.

    Links are not followed: each node may have its own behind the same path.
    """
    return os.path.abspath(source) if Path(source).is_dir() else source


def resolve_config(
    dataset: str, preset: str | None, config_file: Path | None, changes: Sequence[str], directory: Path | None = None
) -> Config:
    """The preset or the configuration file, with the changes of `--set` applied.

    If the data set's `directory` is given, settings that the data define, such as classes, are read from there.

    Raises:
        ConfigError: a setting or value is invalid, or the file numbers the classes otherwise than the data do.
        DataError: the data set's description cannot be used.
    """
    from maag.config import codec
    from maag.data.catalog import preset as preset_of
    from maag.storage import read_json

    if config_file and preset:
        raise ConfigError("--preset and --config exclude each other, as a file holds every setting; give one of them")
    if config_file:
        config = codec.from_document(read_json(config_file), str(config_file))
        if config.data.dataset != dataset:
            raise ConfigError(f"{config_file} is for data set {config.data.dataset!r}, but --dataset is {dataset!r}")
    else:
        config = preset_of(dataset, preset or "paper", directory)
    changed = parse_changes(changes)
    config = codec.override(config, changed)
    if config_file and directory and "data.classes" not in changed:
        way_out = "give the order of the data with --set 'data.classes=[...]', or another --config"
        require_same_numbers(str(config_file), config.data, directory, way_out)
    return config


def require_same_numbers(whose: str, data: DataConfig, directory: Path, way_out: str) -> None:
    """Raise ConfigError if a class of `data` has another label value in the directory, whose masks are read by value.

    `whose` settings they are, and `way_out`, are parts of the message.
    """
    from maag.data.catalog import reader_of

    theirs: Sequence[str] = ()
    with suppress(DataError, StorageError):  # of a description that cannot be used, label values may still be right
        theirs = reader_of(data.dataset).settings(directory).get("data.classes", ())
    value_of = {name: value for value, name in enumerate(theirs)}
    for value, name in enumerate(data.classes):
        if value_of.get(name, value) != value:
            raise ConfigError(
                f"{whose} labels {name} as {value}, but it is {value_of[name]} in {directory} ({', '.join(theirs)}); "
                f"{way_out}"
            )


def parse_changes(changes: Sequence[str]) -> dict[str, str]:
    """`section.key=value` items as a mapping. Raises ConfigError if there is no `=`, or nothing before it."""
    parsed = {}
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {change}: expected section.key=value, as in --set optim.lr=3e-4")
        parsed[path.strip()] = value.strip()
    return parsed


def refuse_idle_wait(wait_minutes: float, *, over_ray: bool) -> None:
    """Raise ConfigError if --wait is given without Ray workers to wait for."""
    if wait_minutes and not over_ray:
        raise ConfigError(
            f"--wait {wait_minutes:g}: it waits for the workers of a cluster only; add --workers or --address, or "
            "leave it out"
        )


def pick_device(name: str) -> torch.device:
    """The device for `--device`. Raises ConfigError if CUDA is requested and not available."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no CUDA device here; see `maag doctor`, or use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
