"""The phases of a cine in one DICOM series, which has a slice per phase at each position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from maag.data.files.dicom_file import SAME_MM
from maag.data.files.dicom_series import require_one_grid
from maag.data.files.dicom_slices import DicomSlice
from maag.errors import DataError

_ORDINALS = ("TemporalPositionIdentifier", "TemporalPositionIndex")
"""Clocks that number the phases; the others are times, perhaps within one of several cardiac cycles."""


def phases_of(slices: Sequence[DicomSlice]) -> list[tuple[DicomSlice, ...]]:
    """The slices of each phase in order of time; a series that is not a cine is one phase, in the given order.

    A series with one slice at most positions is not a cine, even if others have more, which no volume can hold.

    Slices of one phase may differ in time, but have the same rank in time at their positions.

    Raises DataError for slices of different shape, spacing or orientation; for more slices at some positions than at
    others; and for several at one position that differ in more than time, in two dimensions of time, as dynamics of
    cardiac phases do, or that no element distinguishes.
    """
    places = _by_position(slices)
    numbers = Counter(len(place) for place in places)
    usual = min(numbers, key=lambda number: (-numbers[number], number))
    if usual == 1:
        return [tuple(slices)]
    if odd := next((place for place in places if len(place) != usual), None):
        raise DataError(
            f"{odd[0].name}: the series has {len(odd)} slices at its position, but {usual} at others; a volume has one "
            "at each and a cine one per phase: restore missing slices, or remove those that do not belong"
        )
    for place in places:
        _require_one_kind(place)
    times = {one: one.times() for one in slices}
    clocks = places[0][0].clocks
    distinct = {clock: [len({times[one].get(clock) for one in place} - {None}) for place in places] for clock in clocks}
    for clock in clocks:
        if set(distinct[clock]) == {usual}:
            in_time = [sorted(place, key=lambda one: times[one][clock]) for place in places]
            if clock not in _ORDINALS:
                _require_same_order(in_time, times, clock)
            return [tuple(place[phase] for place in in_time) for phase in range(usual)]
    first, second = places[0][:2]
    varied = [clock for clock in clocks if max(distinct[clock]) > 1]
    if len(varied) > 1:
        raise _two_dimensions(first, varied)
    raise DataError(
        f"{second.name}: lies at the position of {first.name}, and none of {', '.join(clocks)} distinguishes them as "
        f"phases of a cine; keep one of them in the volume, and of echoes {second.way_apart}"
    )


def _require_same_order(
    in_time: Sequence[Sequence[DicomSlice]], times: Mapping[DicomSlice, Mapping[str, float]], clock: str
) -> None:
    """Raise DataError if another clock goes back in the order by `clock`, which would mix up dynamics, for example."""
    for place in in_time:
        for other in place[0].clocks:
            known = [times[one][other] for one in place if other in times[one]]
            if known != sorted(known):
                raise _two_dimensions(place[0], (other, clock))


def _two_dimensions(one: DicomSlice, clocks: Sequence[str]) -> DataError:
    return DataError(
        f"{one.name}: the slices at its position differ in {' and '.join(clocks)} independently, but a cine has one "
        "dimension of time; export each cine as its own series, or convert the one to segment to NIfTI"
    )


def _require_one_kind(place: Sequence[DicomSlice]) -> None:
    first = place[0]
    for other in place[1:]:
        for name in sorted({*first.kind, *other.kind}):
            one, another = (found.kind.get(name, "unknown") for found in (first, other))
            if one != another:
                raise DataError(
                    f"{other.name}: lies at the position of {first.name}, but is not a phase of the same cine: its "
                    f"{name} is {another}, not {one}; {other.way_apart}, or convert the one to segment to NIfTI"
                )


def _by_position(slices: Sequence[DicomSlice]) -> list[list[DicomSlice]]:
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
