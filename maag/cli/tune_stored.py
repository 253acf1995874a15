"""The search that lies in a folder, or in a storage, already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maag.cli.runs import RUNS, STORED_PLAN
from maag.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    from maag.data.splits import Split

FORMAT_VERSION = 1


def newest_search(dataset: str) -> Path:
    """The search of `dataset` under runs/ that was begun last. Raises MissingDataError."""
    searches = [path.parent for path in RUNS.glob(f"{dataset}-tune-*/{STORED_PLAN}")]
    if not searches:
        raise MissingDataError(f"{RUNS}: no search of {dataset} here to resume; name one with --out, or start one")
    return max(searches, key=lambda path: (path / STORED_PLAN).stat().st_mtime)


def is_there(out: Path | None, storage: str | None) -> bool:
    """Whether there is a search to resume in --out or in the storage. Raises ConfigError without --out."""
    if out is None:
        raise ConfigError("--resume-if-there: say with --out which search is meant")
    if storage:
        fetch_search(out, storage)
    return (out / STORED_PLAN).exists()


def fetch_search(path: Path, storage: str) -> None:
    """Bring what a search is resumed with from its storage, where it is not here."""
    from tune.place import fetch

    if not (path / STORED_PLAN).exists():
        fetch(storage, path)


def require_new(path: Path, storage: str | None) -> None:
    """Raises ConfigError when the folder or the storage has a search of this name, or the folder a run."""
    from maag.train.folder import RunFolder, require_no_run
    from tune.place import is_taken

    if (path / STORED_PLAN).exists():
        raise ConfigError(f"{path} already holds a search; add --resume to continue it, or choose another --out")
    # What a run leaves behind has names of a search's files: its split and its best weights.
    if RunFolder(path).config.exists():
        raise ConfigError(f"{path} holds a run, whose files a search would replace; choose another --out")
    require_no_run(path)
    if storage and is_taken(storage, path):
        raise ConfigError(
            f"{storage} already holds a search named {path.name}; add --resume to continue it, or choose another --out"
        )


def write_stored(path: Path, asked: dict[str, Any], split: Split) -> None:
    """Begin a search in `path`, and in its storage: with its split, and what was `asked` for.

    Raises:
        ConfigError: another split lies there.
        StorageError: the folder or the storage cannot be written.
    """
    from maag.storage import write_json
    from maag.train.folder import require_no_other_split
    from maag.train.launch.remote import upload
    from tune.place import BEGUN_WITH, beside

    require_no_other_split(path, split)
    write_json(path / "split.json", split.to_dict())
    write_json(path / STORED_PLAN, {"format_version": FORMAT_VERSION, **asked})
    if asked["storage"]:
        upload(path, BEGUN_WITH, beside(asked["storage"], path))


def read_stored(path: Path) -> dict[str, Any]:
    """What the search in `path` was asked for.

    Raises:
        MissingDataError: there is none.
        ConfigError: another maag wrote it.
    """
    from maag.storage import read_json

    stored = path / STORED_PLAN
    if not stored.exists():
        raise MissingDataError(f"{path}: there is no search here to resume (no {STORED_PLAN}); start without --resume")
    before: dict[str, Any] = read_json(stored)
    if before.get("format_version") != FORMAT_VERSION:
        raise ConfigError(
            f"{stored}: format_version {before.get('format_version')} is unknown; this maag reads {FORMAT_VERSION}"
        )
    return before


def require_same_storage(before: dict[str, Any], path: Path, storage: str | None) -> None:
    """Raises ConfigError when --storage is another one than the search has its trials' states in."""
    from maag.train.launch.remote import absolute_storage

    own = before.get("storage")
    if storage and (own is None or absolute_storage(own) != absolute_storage(storage)):
        where = f"the states of its trials are in {own}" if own else f"the states of its trials are in {path}"
        raise ConfigError(f"--storage {storage}: the search {path} was begun without it, and {where}; leave it out")
