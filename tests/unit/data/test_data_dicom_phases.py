"""The phases of a cine in one DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maag.data.files import dicom_phases
from maag.data.files.dicom_series import require_even
from maag.data.files.dicom_slices import read_slices
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import DataError


def phases_of(paths: list[Path]) -> list[tuple[Path, ...]]:
    return [tuple(one.path for one in phase) for phase in dicom_phases.phases_of(read_slices(paths))]


def write(folder: Path, name: str, height_mm: float, **tags: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pixels, place = np.zeros((4, 5), np.uint16), (0.0, 0.0, height_mm)
    path = folder / f"{name}.dcm"
    save_slice(path, pixels, spacing_mm=1, thickness_mm=8, position=place, series="s", number=1, tags=tags)
    return path


@settings(max_examples=20, deadline=None)
@given(
    data=st.data(),
    places=st.integers(1, 3),
    phases=st.integers(2, 4),
    clock=st.sampled_from(["TemporalPositionIdentifier", "TriggerTime"]),
)
def test_every_phase_has_a_slice_of_every_place_in_the_order_of_time(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, places: int, phases: int, clock: str
) -> None:
    folder = tmp_path_factory.mktemp("cine")
    wanted = [[folder / f"{phase}-{place}.dcm" for place in range(places)] for phase in range(phases)]
    for phase in range(phases):
        for place in range(places):
            # Slices of a phase are not of the very same time, nor need one's be before the next phase's of another.
            time = 10 * phase + 1 if clock == "TemporalPositionIdentifier" else 30.5 * phase + 40.0 * place
            write(folder, f"{phase}-{place}", 8.0 * place, **{clock: time})
    given_order = data.draw(st.permutations([path for phase in wanted for path in phase]))
    assert [sorted(phase) for phase in phases_of(given_order)] == wanted


def test_a_series_that_is_no_cine_is_one_phase_in_the_order_that_it_has(tmp_path: Path) -> None:
    paths = [write(tmp_path, str(number), 8.0 * (7 * number % 5), TriggerTime=number) for number in range(5)]
    assert phases_of(paths) == [tuple(paths)]


@pytest.mark.parametrize(
    "tags",
    [({}, {}), ({"TriggerTime": 30}, {"TriggerTime": 30}), ({"TriggerTime": 30}, {}), ({"TriggerTime": ""}, {})],
    ids=["nothing", "same", "one", "empty"],
)
def test_files_at_one_place_that_nothing_tells_apart_are_refused(tmp_path: Path, tags: tuple[dict[str, Any]]) -> None:
    paths = [
        write(tmp_path, f"{place}-{number}", 8.0 * place, **more)
        for place in range(2)
        for number, more in enumerate(tags)
    ]
    with pytest.raises(
        DataError, match=r"0-1\.dcm: lies at the position of \S+0-0\.dcm, .*TriggerTime distinguishes them"
    ):
        phases_of(paths)


def test_a_clock_that_stands_still_at_a_place_tells_nothing(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, f"{phase}-{place}", 8.0 * place, TemporalPositionIdentifier=1, TriggerTime=30 * phase)
        for phase in range(2)
        for place in range(2)
    ]
    assert phases_of(paths) == [tuple(paths[:2]), tuple(paths[2:])]


@pytest.mark.parametrize("numbers", [(1, 2), (1, 1, 3)])
def test_a_slice_that_is_there_twice_makes_no_cine(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    paths = [
        write(tmp_path, f"{place}-{phase}", 8.0 * place, TriggerTime=30 * phase)
        for place, number in enumerate(numbers)
        for phase in range(number)
    ]
    assert phases_of(paths) == [tuple(paths)]
    with pytest.raises(DataError, match="lies at the position of"):
        require_even(paths)


@pytest.mark.parametrize("numbers", [(3, 3, 2), (2, 2, 3), (2, 2, 1)])
def test_a_phase_that_lacks_a_slice_or_a_slice_too_many_is_named(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    paths = [
        write(tmp_path, f"{place}-{phase}", 8.0 * place, TriggerTime=30 * phase)
        for place, number in enumerate(numbers)
        for phase in range(number)
    ]
    sentence = rf"2-0\.dcm: the series has {numbers[2]} slices at its position, but {numbers[0]} at others; .* restore"
    with pytest.raises(DataError, match=sentence):
        phases_of(paths)


def test_slices_of_other_directions_are_no_phases(tmp_path: Path) -> None:
    paths = [write(tmp_path, "a", 0.0), write(tmp_path, "b", 0.0, ImageOrientationPatient=[0, 1, 0, 0, 0, 1])]
    with pytest.raises(DataError, match="or another orientation"):
        phases_of(paths)


def test_a_time_that_is_no_number_is_named(tmp_path: Path) -> None:
    paths = [write(tmp_path, str(number), 0.0, TriggerTime=12345 + number) for number in range(2)]
    paths[1].write_bytes(paths[1].read_bytes().replace(b"12346", b"12x46"))
    with pytest.raises(DataError, match=r"1\.dcm: a damaged header"):
        phases_of(paths)
