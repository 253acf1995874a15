"""The phases of a cine whose files are one DICOM series: as many slices at each place as there are phases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maag.data.files.dicom_file import read_geometry, read_numbers
from maag.data.files.dicom_series import SAME_MM, require_one_grid
from maag.errors import DataError

_CLOCKS = ("TemporalPositionIdentifier", "TriggerTime")
"""What tells phases apart, the first that does so at every place; echoes and directions of flow have it in common."""


def phases_of(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The files of each phase in the order of time; of a series that is no cine all files, as they are given.

    No cine is one that has one slice at most places, though others may have more, which no volume can hold.

    Slices of one phase need not be of the very same time, but each is as early among those of its place.

    Raises:
        DataError: slices of different shape, spacing or orientation; more at some places than at others, or several at
            one that nothing tells apart as phases.
        StorageError: a file cannot be opened.
    """
    places = _by_place(paths)
    numbers = Counter(len(place) for place in places)
    usual = min(numbers, key=lambda number: (-numbers[number], number))
    if usual == 1:
        return [tuple(paths)]
    if odd := next((place for place in places if len(place) != usual), None):
        raise DataError(
            f"{odd[0]}: at its place the series has {len(odd)}, at others {usual}; a volume has one everywhere and a "
            "cine as many as phases: restore what is missing, or take out what does not belong"
        )
    times = {path: read_numbers(path, _CLOCKS) for path in paths}
    for clock in _CLOCKS:
        if all(len({times[path].get(clock) for path in place} - {None}) == usual for place in places):
            in_time = [sorted(place, key=lambda path: times[path][clock]) for place in places]
            return [tuple(place[phase] for place in in_time) for phase in range(usual)]
    raise DataError(
        f"{places[0][1]}: lies at the place of {places[0][0]}, and neither {' nor '.join(_CLOCKS)} tells them apart as "
        "phases of a cine; keep one of them in the volume, and move each of echoes to a folder of its own"
    )


def _by_place(paths: Sequence[Path]) -> list[list[Path]]:
    slices = [read_geometry(path) for path in paths]
    require_one_grid(slices, paths)
    places: list[list[Path]] = []
    last_mm = float("-inf")
    for height_mm, path in sorted(zip((each.height_mm for each in slices), paths, strict=True)):
        if height_mm - last_mm < SAME_MM:
            places[-1].append(path)
        else:
            places.append([path])
        last_mm = height_mm
    return places
