"""Check that no output is written into the data that a command reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from maag.errors import ConfigError


def require_outside(
    out: Path | None, directory: Path, scribbles: Sequence[str] = (), shapes: Path | None = None
) -> None:
    """Refuse an output folder that is a data folder or inside one, where its files would be read as data.

    A parent of a data folder is allowed, such as `.` for `data/acdc`.

    Args:
        out: `--out`. None if it was not given: default folders such as `runs/` may be inside the data folder.
        directory: the data set's folder.
        scribbles: values of `--scribbles`; only folders among them matter.
        shapes: the folder of `--shapes`.

    Raises ConfigError.
    """
    read = [("the data set's folder", directory)]
    read += [("the folder of --scribbles", Path(word)) for word in scribbles if Path(word).is_dir()]
    read += [("the folder of --shapes", shapes)] if shapes else []
    if out is None:
        return
    # Not Path.resolve, which fails on circular links.
    resolved_out = Path(os.path.realpath(out))
    for name, folder in read:
        real = Path(os.path.realpath(folder))
        if resolved_out.is_relative_to(real):
            raise ConfigError(
                f"{out} is {'' if resolved_out == real else 'inside '}{name}, {folder}, where its files would be read "
                "as data; choose an --out outside of it"
            )
