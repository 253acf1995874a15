"""Where an exported model is put: a new folder, an empty one, or that of an older export that holds nothing else."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from deploy.artifact.manifest import MANIFEST, is_artifact
from deploy.exporting.companions import CARD, PROGRAM, README
from deploy.exporting.triton import FILES as TRITON_FILES
from maag.errors import StorageError
from maag.storage import building_directory, is_temporary, read_json, storage_errors

_WAY_OUT = "choose an empty or new folder with --out"


@contextmanager
def building_artifact(out: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success its files stand in `out`, in the place of those of an older export.

    A link is followed. A folder that is there stays the same one, for it may be a working directory or a mount.

    Raises:
        StorageError: `out` holds something that no export wrote, or cannot be written.
    """
    folder = Path(os.path.realpath(out)) if out.is_symlink() else out  # which errors name as it was typed
    require_replaceable(folder)
    there = folder.is_dir()
    staging = (folder if there else folder.parent) / _temporary_name()
    with building_directory(staging) as temporary:
        yield temporary
    try:
        require_replaceable(folder)  # An export takes minutes, in which somebody may put a file there.
        with storage_errors(out):
            if there:
                _exchange(folder, staging)
            else:
                os.rename(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def require_replaceable(folder: Path) -> None:
    """Raise StorageError, naming what is in the way, unless `folder` is new, empty, or holds an export and only that.

    By names alone: what somebody wrote into one of the export's own files is not seen.
    """
    with storage_errors(folder):
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise StorageError(f"cannot write {folder}: it is no folder; {_WAY_OUT}")
        found = sorted(_files_in(folder))
        if not found:
            return
        files = _exported_files(folder)
        if files is None:
            raise StorageError(f"cannot write {folder}: it holds other files, {found[0]} among them; {_WAY_OUT}")
        ours = {MANIFEST, README, CARD, PROGRAM, *TRITON_FILES, *files}
        others = [name for name in found if name not in ours]
        if others:
            raise StorageError(
                f"cannot replace the exported model in {folder}: {others[0]} is no part of it; "
                f"move that elsewhere, or {_WAY_OUT}"
            )


def _exported_files(folder: Path) -> list[str] | None:
    """What the manifest, also one of another format version, names; None where there is none that `maag export` wrote.

    Other programs call files of theirs `manifest.json` too.
    """
    if not is_artifact(folder):
        return None
    try:
        plain = read_json(folder / MANIFEST)
    except StorageError:
        return None
    if not isinstance(plain, dict) or not isinstance(plain.get("format_version"), int):
        return None
    files, source = plain.get("files"), plain.get("source")
    if not isinstance(files, dict) or not isinstance(source, dict) or "checkpoint" not in source:
        return None
    return list(files)


def _files_in(folder: Path) -> Iterator[str]:
    """Everything but folders, relative to `folder` with `/`, and but what an export that was killed has left."""
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        folders[:] = [name for name in folders if not is_temporary(name)]
        for name in (*names, *links):
            if not is_temporary(name):
                yield PurePath(place, name).relative_to(folder).as_posix()


def _exchange(folder: Path, staging: Path) -> None:
    """Put what is in `staging` in the place of all else in `folder`, in which it is.

    The old manifest goes first and the new one comes last: whatever is cut off when, what looks like a model is whole.
    """
    retired = folder / _temporary_name()
    retired.mkdir()
    old = [path for path in folder.iterdir() if path not in (staging, retired)]
    for path in sorted(old, key=lambda path: path.name != MANIFEST):
        os.rename(path, retired / path.name)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == MANIFEST):
        os.rename(path, folder / path.name)
    shutil.rmtree(retired, ignore_errors=True)


def _temporary_name() -> str:
    return f".maag-export.{uuid.uuid4().hex[:8]}.tmp"
