"""The output folder of an export: new, empty, or holding only an older export, which is replaced."""

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
    """Yield an empty temporary folder; on success its files move to `out` and replace those of an older export.

    Links are followed. An existing folder is kept, not recreated, as it may be a working directory or a mount.

    Raises:
        StorageError: `out` holds files that no export wrote, or cannot be written.
    """
    folder = Path(os.path.realpath(out)) if out.is_symlink() else out  # errors show it as typed
    require_replaceable(folder)
    exists = folder.is_dir()
    staging = (folder if exists else folder.parent) / _temporary_name()
    with building_directory(staging) as temporary:
        yield temporary
    try:
        require_replaceable(folder)  # again, as files may have been added during the export
        with storage_errors(out):
            if exists:
                _exchange(folder, staging)
            else:
                os.rename(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def require_replaceable(folder: Path) -> None:
    """Raise StorageError, naming the obstacle, unless `folder` is new, empty, or holds an export and nothing else.

    Only file names are checked: edits to the export's own files are not noticed.
    """
    with storage_errors(folder):
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise StorageError(f"cannot write {folder}: it is not a folder; {_WAY_OUT}")
        found = sorted(_files_in(folder))
        if not found:
            return
        files = _exported_files(folder)
        if files is None:
            raise StorageError(f"cannot write {folder}: it holds other files, such as {found[0]}; {_WAY_OUT}")
        ours = {MANIFEST, README, CARD, PROGRAM, *TRITON_FILES, *files}
        others = [name for name in found if name not in ours]
        if others:
            raise StorageError(
                f"cannot replace the exported model in {folder}: {others[0]} is not part of it; "
                f"move it elsewhere, or {_WAY_OUT}"
            )


def _exported_files(folder: Path) -> list[str] | None:
    """Files named by a manifest of any format version; None if there is none that `maag export` wrote.

    Other programs have files called `manifest.json` too.
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
    """Files and links relative to `folder` with `/`, without temporary ones of a killed export."""
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        folders[:] = [name for name in folders if not is_temporary(name)]
        for name in (*names, *links):
            if not is_temporary(name):
                yield PurePath(place, name).relative_to(folder).as_posix()


def _exchange(folder: Path, staging: Path) -> None:
    """Replace everything in `folder` by the content of its subfolder `staging`.

    The old manifest goes first and the new one comes last, so that after an interruption no partial model has one.
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
