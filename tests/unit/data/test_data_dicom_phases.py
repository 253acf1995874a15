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


def write_slice(folder: Path, name: str, height_mm: float, **tags: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pixels, position = np.zeros((4, 5), np.uint16), (0.0, 0.0, height_mm)
    path = folder / f"{name}.dcm"
    save_slice(path, pixels, spacing_mm=1, thickness_mm=8, position=position, series="s", number=1, tags=tags)
    return path


@settings(max_examples=20, deadline=None)
@given(
    data=st.data(),
    positions=st.integers(1, 3),
    phases=st.integers(2, 4),
    time_element=st.sampled_from(["TemporalPositionIdentifier", "TriggerTime"]),
)
def test_phases_are_in_time_order_with_one_slice_per_position(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, positions: int, phases: int, time_element: str
) -> None:
    folder = tmp_path_factory.mktemp("cine")
    expected = [[folder / f"{phase}-{position}.dcm" for position in range(positions)] for phase in range(phases)]
    for phase in range(phases):
        for position in range(positions):
            # Slices of a phase differ in time; some are later than slices of the next phase at other positions.
            time = 10 * phase + 1 if time_element == "TemporalPositionIdentifier" else 30.5 * phase + 40.0 * position
            write_slice(folder, f"{phase}-{position}", 8.0 * position, **{time_element: time})
    shuffled = data.draw(st.permutations([path for phase in expected for path in phase]))
    assert [sorted(phase) for phase in phases_of(shuffled)] == expected


def test_a_series_without_repeated_positions_is_one_phase_in_its_given_order(tmp_path: Path) -> None:
    paths = [write_slice(tmp_path, str(number), 8.0 * (7 * number % 5), TriggerTime=number) for number in range(5)]
    assert phases_of(paths) == [tuple(paths)]


@pytest.mark.parametrize(
    "tags",
    [({}, {}), ({"TriggerTime": 30}, {"TriggerTime": 30}), ({"TriggerTime": 30}, {}), ({"TriggerTime": ""}, {})],
    ids=["nothing", "same", "one", "empty"],
)
def test_indistinguishable_files_at_one_position_are_refused(tmp_path: Path, tags: tuple[dict[str, Any]]) -> None:
    paths = [
        write_slice(tmp_path, f"{position}-{number}", 8.0 * position, **extra)
        for position in range(2)
        for number, extra in enumerate(tags)
    ]
    with pytest.raises(
        DataError, match=r"0-1\.dcm: lies at the position of \S+0-0\.dcm, .*TriggerTime distinguishes them"
    ):
        phases_of(paths)


def test_a_time_element_constant_at_a_position_is_ignored(tmp_path: Path) -> None:
    paths = [
        write_slice(
            tmp_path, f"{phase}-{position}", 8.0 * position, TemporalPositionIdentifier=1, TriggerTime=30 * phase
        )
        for phase in range(2)
        for position in range(2)
    ]
    assert phases_of(paths) == [tuple(paths[:2]), tuple(paths[2:])]


def write_dynamics(folder: Path, delay_ms: float) -> list[Path]:
    """Three phases in each of two dynamics, at two positions; `delay_ms` is added to trigger times in the second."""
    return [
        write_slice(
            folder,
            f"{position}-{dynamic}-{phase}",
            8.0 * position,
            TemporalPositionIdentifier=dynamic + 1,
            TriggerTime=30.0 * phase + delay_ms * dynamic,
        )
        for position in range(2)
        for dynamic in range(2)
        for phase in range(3)
    ]


@pytest.mark.parametrize("jitter_ms", [0.0, 0.5, -0.5])
def test_dynamics_of_cardiac_phases_are_refused(tmp_path: Path, jitter_ms: float) -> None:
    """In the order of trigger times, which the jitter makes unique, dynamics would alternate."""
    paths = write_dynamics(tmp_path, jitter_ms)
    with pytest.raises(DataError, match=r"differ in TemporalPositionIdentifier and TriggerTime indep.* own series, or"):
        phases_of(paths)


def test_trigger_times_that_continue_in_the_next_dynamic_are_one_dimension(tmp_path: Path) -> None:
    paths = write_dynamics(tmp_path, 90.0)
    assert [phase[0].name for phase in phases_of(paths[::-1])] == [path.name for path in paths[:6]]


def test_numbered_phases_keep_their_order_though_trigger_times_repeat(tmp_path: Path) -> None:
    paths = [
        write_slice(tmp_path, str(number), 0.0, TemporalPositionIdentifier=number + 1, TriggerTime=30.0 * (number % 3))
        for number in range(6)
    ]
    assert phases_of(paths[::-1]) == [(path,) for path in paths]


@pytest.mark.parametrize("counts", [(1, 2), (1, 1, 3)])
def test_a_duplicated_slice_does_not_make_a_cine(tmp_path: Path, counts: tuple[int, ...]) -> None:
    paths = [
        write_slice(tmp_path, f"{position}-{phase}", 8.0 * position, TriggerTime=30 * phase)
        for position, count in enumerate(counts)
        for phase in range(count)
    ]
    assert phases_of(paths) == [tuple(paths)]
    with pytest.raises(DataError, match="lies at the position of"):
        require_even(paths)


@pytest.mark.parametrize("counts", [(3, 3, 2), (2, 2, 3), (2, 2, 1)])
def test_a_phase_with_a_missing_or_extra_slice_is_reported(tmp_path: Path, counts: tuple[int, ...]) -> None:
    paths = [
        write_slice(tmp_path, f"{position}-{phase}", 8.0 * position, TriggerTime=30 * phase)
        for position, count in enumerate(counts)
        for phase in range(count)
    ]
    sentence = rf"2-0\.dcm: the series has {counts[2]} slices at its position, but {counts[0]} at others; .* restore"
    with pytest.raises(DataError, match=sentence):
        phases_of(paths)


def test_slices_with_different_orientations_are_not_phases(tmp_path: Path) -> None:
    paths = [
        write_slice(tmp_path, "a", 0.0),
        write_slice(tmp_path, "b", 0.0, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]),
    ]
    with pytest.raises(DataError, match="or another orientation"):
        phases_of(paths)


def test_a_non_numeric_trigger_time_is_reported(tmp_path: Path) -> None:
    paths = [write_slice(tmp_path, str(number), 0.0, TriggerTime=12345 + number) for number in range(2)]
    paths[1].write_bytes(paths[1].read_bytes().replace(b"12346", b"12x46"))
    with pytest.raises(DataError, match=r"1\.dcm: a damaged header"):
        phases_of(paths)
