"""Check that nothing is written where images are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path

from deploy.inputs.input_lists import resolved_place, without_lists
from deploy.inputs.patterns import parents, pattern_of
from deploy.inputs.source_kinds import Source
from maag.errors import ConfigError
from maag.storage.keys import is_uri


def require_disjoint(inputs: Sequence[str | Path], sources: Sequence[Source], out: str) -> None:
    """Refuse an output inside the input, where images would be overwritten, or labels read as images the next time.

    Raises ConfigError.
    """
    given = list(without_lists(inputs))
    read = {resolved_place(place) for place in given if is_uri(place) or Path(place).is_dir()}
    places = {resolved_place(source.place) for source in sources}
    above_places = {folder for place in places for folder in (place, *parents(place))}
    # Both the folder of a link and that of its target may hold a mask of the user's.
    files = {file for source in sources for file in source.files}
    beside = {_folder_of(place): file for file in files for place in (resolved_place(file), _named(file))}
    wild = [place for place in given if has_magic(place) and not Path(place).exists()]
    # In a store, too, an object with this literal name takes precedence over the pattern.
    patterns = [
        pattern_of(place) for place in map(resolved_place, wild) if not (is_uri(place) and place in above_places)
    ]
    for target in (out, *(f"{out}/{source.target}" for source in sources)):
        resolved = resolved_place(target)
        above = {resolved, *parents(resolved)}
        matched = any(pattern.fullmatch(place) for pattern in patterns for place in above)
        if resolved in places or read & above or matched:
            raise ConfigError(f"{target} is inside the input; choose an output folder outside of it")
        if target != out and (image := beside.get(_folder_of(resolved)) or beside.get(_folder_of(_named(target)))):
            raise ConfigError(
                f"{target} would be written beside {image}, where it may replace your own mask; choose an output "
                "folder without images"
            )


def _named(place: str) -> str:
    """As `resolved_place`, but a link as the last part is not followed."""
    if is_uri(place):
        return resolved_place(place)
    folder, name = os.path.split(place)
    return os.path.join(os.path.realpath(folder), name)


def _folder_of(place: str) -> str:
    return next(parents(place), "")
