"""The phases of a cine that is one DICOM series: as many slices at each place as there are phases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from maag.data.files.dicom_file import SAME_MM
from maag.data.files.dicom_series import require_one_grid
from maag.data.files.dicom_slices import DicomSlice
from maag.errors import DataError


def phases_of(slices: Sequence[DicomSlice]) -> list[tuple[DicomSlice, ...]]:
    """The slices of each phase in the order of time; of a series that is no cine all slices, as they are given.

    No cine is one that has one slice at most places, though others may have more, which no volume can hold.

    Slices of one phase need not be of the very same time, but each is as early among those of its place.

    Raises DataError for slices of different shape, spacing or orientation; for more at some places than at others; and
    for several at one place that nothing tells apart as phases, or that differ in more than time.
    """
    places = _by_place(slices)
    numbers = Counter(len(place) for place in places)
    usual = min(numbers, key=lambda number: (-numbers[number], number))
    if usual == 1:
        return [tuple(slices)]
    if odd := next((place for place in places if len(place) != usual), None):
        raise DataError(
            f"{odd[0].name}: at its place the series has {len(odd)}, at others {usual}; a volume has one everywhere "
            "and a cine as many as phases: restore what is missing, or take out what does not belong"
        )
    for place in places:
        _require_one_kind(place)
    times = {one: one.times() for one in slices}
    clocks = places[0][0].clocks
    for clock in clocks:
        if all(len({times[one].get(clock) for one in place} - {None}) == usual for place in places):
            in_time = [sorted(place, key=lambda one: times[one][clock]) for place in places]
            return [tuple(place[phase] for place in in_time) for phase in range(usual)]
    first, second = places[0][:2]
    raise DataError(
        f"{second.name}: lies at the place of {first.name}, and none of {', '.join(clocks)} tells them apart as phases "
        f"of a cine; keep one of them in the volume, and of echoes {second.way_apart}"
    )


def _require_one_kind(place: Sequence[DicomSlice]) -> None:
    first = place[0]
    for other in place[1:]:
        for name in sorted({*first.kind, *other.kind}):
            one, another = (found.kind.get(name, "nothing") for found in (first, other))
            if one != another:
                raise DataError(
                    f"{other.name}: lies at the place of {first.name}, and is no phase of a cine beside it, for its "
                    f"{name} is {another}, not {one}; {other.way_apart}, or convert the one to segment to NIfTI"
                )


def _by_place(slices: Sequence[DicomSlice]) -> list[list[DicomSlice]]:
    require_one_grid(slices)
    places: list[list[DicomSlice]] = []
    last_mm = float("-inf")
    for one in sorted(slices, key=lambda one: (one.geometry.height_mm, one.path, one.frame or 0)):
        if one.geometry.height_mm - last_mm < SAME_MM:
            places[-1].append(one)
        else:
            places.append([one])
        last_mm = one.geometry.height_mm
    return places
