"""The files below a folder, at any depth and through links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """All files in `folder` and the folders below it, except hidden ones; no folder is entered twice.

    Links to folders are followed after everything below `folder` itself, so a folder that is reached in two ways has
    its own path. Dead links count as files, so that reading them reports them. Folders that cannot be listed are
    skipped.
    """
    entered: set[str] = set()
    starts = [folder]
    for start in starts:
        for place, folders, names in os.walk(start):
            real = os.path.realpath(place)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += [path for name in folders if (path := Path(place, name)).is_symlink()]
            yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def is_there(path: Path) -> bool:
    """Whether there is a file; dead links, as of a partly fetched data set, count as in `files_below`."""
    return path.is_file() or path.is_symlink()
