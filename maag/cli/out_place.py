"""That nothing of maag's is written among the data that it reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from maag.errors import ConfigError


def require_outside(
    out: Path | None, directory: Path, scribbles: Sequence[str] = (), shapes: Path | None = None
) -> None:
    """Refuse an output folder that is a folder of data or lies in one, where its files would pass for data.

    A folder above the data is no such place, as `.` above `data/acdc`: what is written there lies beside them.

    Args:
        out: where a command is told to write. None where nobody said: its own place, such as `runs/` of the folder
            here, is a folder for itself, and who works in the data's folder may have it there.
        directory: the data set's folder.
        scribbles: words of `--scribbles`, of which those that are folders count.
        shapes: the folder of `--shapes`.

    Raises ConfigError.
    """
    read = [("the data set's folder", directory)]
    read += [("the folder of --scribbles", Path(word)) for word in scribbles if Path(word).is_dir()]
    read += [("the folder of --shapes", shapes)] if shapes else []
    if out is None:
        return
    # Not Path.resolve, which takes no links that lead in a circle.
    place = Path(os.path.realpath(out))
    for name, folder in read:
        real = Path(os.path.realpath(folder))
        if place.is_relative_to(real):
            raise ConfigError(
                f"{out} {'is' if place == real else 'lies in'} {name}, {folder}, where its files would pass for data; "
                "choose an --out outside of it"
            )
