"""What lies below a folder, however deep, and by links as well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """All files in `folder` and in the folders below it, but hidden ones; no folder is entered twice.

    Links to folders are followed, after all that lies below `folder` itself: where a folder is reached in two ways its
    own path counts. What is no folder is a file, a dead link too, so that its reader can name it. Folders that may not
    be listed are passed over.
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
