"""Enhanced files: every frame lies in the phase where its functional groups put it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from enhanced_dicom import frame_at, noise_frames, save_enhanced

from maag.data.files.dicom_phases import phases_of
from maag.data.files.dicom_series import load_series, require_even
from maag.data.files.dicom_slices import read_slices
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import DataError

SLICE_SPACING_MM = 6.0
TIME_ELEMENTS = [
    "TemporalPositionIndex",
    "NominalCardiacTriggerDelayTime",
    "TemporalPositionTimeOffset",
    "TriggerTime",
    "DimensionIndexValues",
]


@pytest.mark.parametrize("time_element", TIME_ELEMENTS)
def test_equally_many_frames_at_each_position_are_the_phases_of_a_cine(tmp_path: Path, time_element: str) -> None:
    positions, phases = 3, 4
    frames, phase_and_position = [], []
    for number in np.random.default_rng(0).permutation(positions * phases).tolist():
        position, phase = number % positions, number // positions
        time = [position + 1, phase + 1] if time_element == "DimensionIndexValues" else phase + 1
        # Philips writes TemporalPositionIndex 1 in all frames of a cine.
        constant = (
            {} if time_element in ("TemporalPositionIndex", "DimensionIndexValues") else {"TemporalPositionIndex": 1}
        )
        frames.append(frame_at(SLICE_SPACING_MM * position, **constant, **{time_element: time}))
        phase_and_position.append((phase, position))
    stored = noise_frames(len(frames))
    dimensions = (
        ["InStackPositionNumber", "NominalCardiacTriggerDelayTime"] if time_element == TIME_ELEMENTS[-1] else []
    )
    path = save_enhanced(tmp_path / "cine.dcm", stored, frames, dimensions=dimensions)
    found = phases_of(read_slices([path]))
    assert len(found) == phases
    for phase, slices in enumerate(found):
        expected = np.stack([stored[phase_and_position.index((phase, position))] for position in range(positions)])
        np.testing.assert_array_equal(load_series(slices).voxels[0], expected)


def test_frames_in_several_files_of_a_series_form_one_cine(tmp_path: Path) -> None:
    for position in range(3):
        frames = [
            frame_at(
                SLICE_SPACING_MM * position,
                NominalCardiacTriggerDelayTime=30.0 * phase + position,
                EffectiveEchoTime=1.2 + phase / 1e9,
            )
            for phase in range(2)
        ]
        save_enhanced(tmp_path / f"{2 - position}.dcm", noise_frames(2) + position, frames)
    first, second = phases_of(read_slices(sorted(tmp_path.iterdir())))
    np.testing.assert_array_equal(
        load_series(second).voxels[0], [noise_frames(2)[1] + position for position in range(3)]
    )
    assert load_series(first).affine[2, 2] == SLICE_SPACING_MM


def test_legacy_converted_files_are_read_like_their_classic_sources(tmp_path: Path) -> None:
    files = []
    for phase in range(2):
        for position in range(3):
            files.append(tmp_path / f"{phase}-{position}.dcm")
            tags = {
                **{"TriggerTime": 30 * phase + position, "RescaleSlope": 2, "RescaleIntercept": -5, "PatientID": "1"},
                **{"SeriesNumber": 1, "StudyID": "", "AccessionNumber": "", "PatientSex": "", "PatientBirthDate": ""},
                **{"StudyDate": "", "StudyTime": "", "Manufacturer": "", "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]},
                **{"BurnedInAnnotation": "NO", "PatientName": "A^B"},
            }
            save_slice(
                files[-1],
                noise_frames(6)[3 * phase + position],
                spacing_mm=1,
                thickness_mm=6,
                position=(0.0, 0.0, SLICE_SPACING_MM * position),
                series="s",
                number=len(files),
                tags=tags,
            )
    converted = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        [pydicom.dcmread(file) for file in files], "1.2.3", 1, "1.2.4", 1
    )
    converted.save_as(tmp_path / "converted.dcm")
    classic_phases, converted_phases = (
        phases_of(read_slices(files)),
        phases_of(read_slices([tmp_path / "converted.dcm"])),
    )
    assert len(classic_phases) == len(converted_phases) == 2
    for classic, enhanced in zip(classic_phases, converted_phases, strict=True):
        np.testing.assert_array_equal(load_series(classic).voxels, load_series(enhanced).voxels)
        np.testing.assert_allclose(load_series(classic).affine, load_series(enhanced).affine)


TWO_FRAMES_PER_POSITION = [
    frame_at(SLICE_SPACING_MM * position, StackID="1") for position in range(2) for _ in range(2)
]


@pytest.mark.parametrize(
    ("alternating", "dimensions", "sentence"),
    [
        ([{"StackID": "1"}, {"StackID": "2"}], [], r"2 stacks of slices \(StackID 1, 2\), .* as its own series"),
        ([{}, {"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}], [], "frame 2 differs .* in orientation or pixel size"),
        ([{}, {"PixelSpacing": [1, 1]}], [], "frame 2 differs .* pixel size, .* export each"),
        ([{"EffectiveEchoTime": 2.5}, {"EffectiveEchoTime": 5}], [], "frame 2: lies .*EchoTime is 5, not 2.5"),
        (
            [
                {"ComplexImageComponent": name, "TemporalPositionIndex": number}
                for number, name in enumerate(("MAGNITUDE", "PHASE"))
            ],
            [],
            "but is not a phase of the same cine: its ComplexImageComponent is PHASE, not MAGNITUDE; export each",
        ),
        (
            [{"DimensionIndexValues": [1, number]} for number in (1, 2)],
            ["TemporalPositionIndex", "ContrastBolusAgentPhase"],
            "its ContrastBolusAgentPhase is 2, not 1",
        ),
        ([{}, {}], [], r"frame 2: lies at the position of \S+a\.dcm, frame 1, and none of Temporal.* export"),
        ([{"TemporalPositionIndex": 1}, {"TemporalPositionIndex": 1}], [], "none of TemporalPositionIndex"),
    ],
)
def test_frames_forming_neither_a_volume_nor_a_cine_are_refused(
    tmp_path: Path, alternating: list[Mapping[str, Any]], dimensions: list[str], sentence: str
) -> None:
    frames = [{**frame, **alternating[number % 2]} for number, frame in enumerate(TWO_FRAMES_PER_POSITION)]
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(4), frames, dimensions=dimensions)
    with pytest.raises(DataError, match=sentence) as caught:
        phases_of(read_slices([path]))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("jitter_ms", [0.0, 0.5])
@pytest.mark.parametrize("dynamic_element", ["TemporalPositionIndex", "TemporalPositionTimeOffset"])
@pytest.mark.parametrize("phase_element", ["NominalCardiacTriggerDelayTime", "TriggerTime"])
def test_dynamics_of_cardiac_phases_are_refused(
    tmp_path: Path, phase_element: str, dynamic_element: str, jitter_ms: float
) -> None:
    frames = [
        frame_at(
            SLICE_SPACING_MM * position,
            **{phase_element: 30.0 * phase + jitter_ms * dynamic, dynamic_element: dynamic + 1},
        )
        for position in range(2)
        for dynamic in range(2)
        for phase in range(3)
    ]
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(len(frames)), frames)
    with pytest.raises(DataError, match=r"the slices at its position differ in .* independently") as caught:
        phases_of(read_slices([path]))
    assert {phase_element, dynamic_element} <= set(str(caught.value).split())


def test_headers_are_not_read_twice(tmp_path: Path) -> None:
    for phase in range(2):
        for position in range(2):
            path, position_mm = tmp_path / f"{phase}{position}.dcm", (0.0, 0.0, SLICE_SPACING_MM * position)
            tags = {"TriggerTime": 30 * phase}
            save_slice(
                path,
                noise_frames(1)[0],
                spacing_mm=1,
                thickness_mm=6,
                position=position_mm,
                series="s",
                number=1,
                tags=tags,
            )
    slices = read_slices(sorted(tmp_path.iterdir()))
    for path in tmp_path.iterdir():
        path.unlink()
    for phase in phases_of(slices):
        require_even(phase)
        assert len({piece.path.name[0] for piece in phase}) == 1
