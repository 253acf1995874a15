"""Searches that exist in a folder or a storage: find, read and write them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maag.cli.runs import RUNS, STORED_PLAN
from maag.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    from maag.data.splits import Split

FORMAT_VERSION = 1


def newest_search(dataset: str) -> Path:
    """The search on `dataset` under runs/ that was started last. Raises MissingDataError."""
    searches = [path.parent for path in RUNS.glob(f"{dataset}-tune-*/{STORED_PLAN}")]
    if not searches:
        raise MissingDataError(f"{RUNS}: no search on {dataset} to resume here; name one with --out, or start one")
    return max(searches, key=lambda path: (path / STORED_PLAN).stat().st_mtime)


def is_there(out: Path | None, storage: str | None) -> bool:
    """Whether a search to resume exists in --out or in the storage. Raises ConfigError without --out."""
    if out is None:
        raise ConfigError("--resume-if-there: name the search with --out")
    if storage:
        fetch_search(out, storage)
    return (out / STORED_PLAN).exists()


def fetch_search(path: Path, storage: str) -> None:
    """Fetch what is needed to resume a search from its storage, unless it is in `path` already."""
    from tune.place import fetch

    if not (path / STORED_PLAN).exists():
        fetch(storage, path)


def require_new(path: Path, storage: str | None) -> None:
    """Raise ConfigError if the folder or the storage has a search of this name, or the folder a run."""
    from maag.train.folder import RunFolder, require_no_run
    from tune.place import is_taken

    if (path / STORED_PLAN).exists():
        raise ConfigError(f"{path} already holds a search; add --resume to continue it, or choose another --out")
    # A run and a search have files of the same names: the split and the best weights.
    if RunFolder(path).config.exists():
        raise ConfigError(f"{path} holds a run, whose files a search would overwrite; choose another --out")
    require_no_run(path)
    if storage and is_taken(storage, path):
        raise ConfigError(
            f"{storage} already holds a search named {path.name}; add --resume to continue it, or choose another --out"
        )


def write_stored(path: Path, options: dict[str, Any], split: Split) -> None:
    """Write split.json and search.json, with the `options`, to `path` and to the search's storage.

    Raises:
        ConfigError: `path` has another split.
        StorageError: the folder or the storage cannot be written.
    """
    from maag.storage import write_json
    from maag.train.folder import require_no_other_split
    from maag.train.launch.remote import upload
    from tune.place import BEGUN_WITH, beside

    require_no_other_split(path, split)
    write_json(path / "split.json", split.to_dict())
    write_json(path / STORED_PLAN, {"format_version": FORMAT_VERSION, **options})
    if options["storage"]:
        upload(path, BEGUN_WITH, beside(options["storage"], path))


def read_stored(path: Path) -> dict[str, Any]:
    """The options that the search in `path` was started with.

    Raises:
        MissingDataError: there is no search.
        ConfigError: it has another format version.
    """
    from maag.storage import read_json

    stored = path / STORED_PLAN
    if not stored.exists():
        raise MissingDataError(f"{path}: no search to resume here (no {STORED_PLAN}); start without --resume")
    before: dict[str, Any] = read_json(stored)
    if before.get("format_version") != FORMAT_VERSION:
        raise ConfigError(
            f"{stored}: format_version {before.get('format_version')} is unknown; this maag reads {FORMAT_VERSION}"
        )
    return before


def require_same_storage(before: dict[str, Any], path: Path, storage: str | None) -> None:
    """Raise ConfigError if --storage is not where the search keeps the states of its trials."""
    from maag.train.launch.remote import absolute_storage

    own = before.get("storage")
    if storage and (own is None or absolute_storage(own) != absolute_storage(storage)):
        raise ConfigError(
            f"--storage {storage}: the search {path} was started without it, and the states of its trials are in "
            f"{own or path}; leave it out"
        )
