"""Enhanced files: every frame lies in the volume, or in the phase, where its functional groups put it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from enhanced_dicom import save_enhanced
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from scipy.spatial.transform import Rotation

from maag.data.files.dicom_phases import phases_of
from maag.data.files.dicom_series import load_series, require_even
from maag.data.files.dicom_slices import read_slices
from maag.data.phantoms.dicom_files import save_slice
from maag.errors import DataError

SHAPE = (5, 4)
ROWS_MM, COLUMNS_MM, APART_MM = 2.5, 0.75, 6.0


def noise(count: int) -> NDArray[np.uint16]:
    return np.random.default_rng(count).integers(0, 900, (count, *SHAPE)).astype(np.uint16)


def at(height: float, **elements: Any) -> dict[str, Any]:
    return {"ImagePositionPatient": [0.0, 0.0, height], **elements}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    order=st.integers(1, 5).flatmap(lambda count: st.permutations(range(count))),
    tilt=st.floats(-0.4, 0.4),
    per_frame=st.booleans(),
    syntax=st.sampled_from(
        [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless]
    ),
)
def test_every_pixel_lies_where_its_frame_says(
    tmp_path_factory: pytest.TempPathFactory, seed: int, order: list[int], tilt: float, per_frame: bool, syntax: str
) -> None:
    axes = Rotation.random(random_state=seed).as_matrix()  # along a row, along a column, across
    way = APART_MM * (axes[2] + tilt * axes[1])
    begin = np.array([-30.0, 12.0, 70.0])
    stored = noise(len(order))
    common = {
        "ImageOrientationPatient": [float(value) for value in axes[:2].ravel().round(9)],
        "PixelSpacing": [ROWS_MM, COLUMNS_MM],
        "SpacingBetweenSlices": APART_MM,
    }
    frames = [
        {
            "ImagePositionPatient": [float(value) for value in (begin + place * way).round(6)],
            "RescaleSlope": place + 2,
            "RescaleIntercept": -7,
            **(common if per_frame else {}),
        }
        for place in order
    ]
    path = tmp_path_factory.mktemp("enhanced") / "a.dcm"
    shared = dict.fromkeys(common) if per_frame else common
    save_enhanced(path, stored, frames, shared=shared, syntax=syntax)
    slices = read_slices([path])
    assert [list(phase) for phase in phases_of(slices)] == [slices]
    require_even(slices)
    volume = load_series(slices)
    for frame, place in enumerate(order):
        np.testing.assert_allclose(volume.voxels[0, place], (place + 2.0) * stored[frame] - 7)
        for row, column in np.ndindex(SHAPE):
            patient = begin + place * way + column * COLUMNS_MM * axes[0] + row * ROWS_MM * axes[1]
            np.testing.assert_allclose((volume.affine @ [column, row, place, 1])[:3], patient * [-1, -1, 1], atol=1e-3)
    assert volume.spacing_mm == pytest.approx((APART_MM, ROWS_MM, COLUMNS_MM), rel=1e-4)


def test_highdicom_reads_the_same_volume(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise(4), [at(height) for height in (12.0, 0.0, 18.0, 6.0)])
    volume, other = load_series(read_slices([path])), highdicom.imread(path).get_volume()
    to_nifti = np.linalg.inv(volume.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0]) @ other.affine
    for index in np.ndindex(other.array.shape):
        x, y, z = np.rint(to_nifti @ [*index, 1]).astype(int)[:3]
        assert volume.voxels[0, z, y, x] == other.array[index]


CLOCKS = [
    "TemporalPositionIndex",
    "NominalCardiacTriggerDelayTime",
    "TemporalPositionTimeOffset",
    "TriggerTime",
    "DimensionIndexValues",
]


@pytest.mark.parametrize("clock", CLOCKS)
def test_as_many_frames_at_each_place_are_the_phases_of_a_cine(tmp_path: Path, clock: str) -> None:
    places, phases = 3, 4
    frames, of_phase = [], []
    for number in np.random.default_rng(0).permutation(places * phases).tolist():
        place, phase = number % places, number // places
        time = [place + 1, phase + 1] if clock == "DimensionIndexValues" else phase + 1
        # Philips calls all frames of a cine temporal position 1.
        stopped = {} if clock in ("TemporalPositionIndex", "DimensionIndexValues") else {"TemporalPositionIndex": 1}
        frames.append(at(APART_MM * place, **stopped, **{clock: time}))
        of_phase.append((phase, place))
    stored = noise(len(frames))
    dimensions = ["InStackPositionNumber", "NominalCardiacTriggerDelayTime"] if clock == CLOCKS[-1] else []
    path = save_enhanced(tmp_path / "cine.dcm", stored, frames, dimensions=dimensions)
    found = phases_of(read_slices([path]))
    assert len(found) == phases
    for phase, slices in enumerate(found):
        expected = np.stack([stored[of_phase.index((phase, place))] for place in range(places)])
        np.testing.assert_array_equal(load_series(slices).voxels[0], expected)


def test_frames_of_several_files_of_a_series_are_one_cine(tmp_path: Path) -> None:
    for place in range(3):
        frames = [
            at(
                APART_MM * place,
                NominalCardiacTriggerDelayTime=30.0 * phase + place,
                EffectiveEchoTime=1.2 + phase / 1e9,
            )
            for phase in range(2)
        ]
        save_enhanced(tmp_path / f"{2 - place}.dcm", noise(2) + place, frames)
    first, second = phases_of(read_slices(sorted(tmp_path.iterdir())))
    np.testing.assert_array_equal(load_series(second).voxels[0], [noise(2)[1] + place for place in range(3)])
    assert load_series(first).affine[2, 2] == APART_MM


def test_a_file_of_one_frame_may_tell_of_it_as_of_all(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise(1), [{}], shared=at(30.0))
    assert load_series(read_slices([path])).affine[:, 3].tolist() == [0, 0, 30, 1]


def test_files_that_were_converted_are_read_as_those_of_one_slice(tmp_path: Path) -> None:
    files = []
    for phase in range(2):
        for place in range(3):
            files.append(tmp_path / f"{phase}-{place}.dcm")
            tags = {
                **{"TriggerTime": 30 * phase + place, "RescaleSlope": 2, "RescaleIntercept": -5, "PatientID": "1"},
                **{"SeriesNumber": 1, "StudyID": "", "AccessionNumber": "", "PatientSex": "", "PatientBirthDate": ""},
                **{"StudyDate": "", "StudyTime": "", "Manufacturer": "", "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]},
                **{"BurnedInAnnotation": "NO", "PatientName": "A^B"},
            }
            save_slice(
                files[-1],
                noise(6)[3 * phase + place],
                spacing_mm=1,
                thickness_mm=6,
                position=(0.0, 0.0, APART_MM * place),
                series="s",
                number=len(files),
                tags=tags,
            )
    converted = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        [pydicom.dcmread(file) for file in files], "1.2.3", 1, "1.2.4", 1
    )
    converted.save_as(tmp_path / "converted.dcm")
    of_files, of_frames = phases_of(read_slices(files)), phases_of(read_slices([tmp_path / "converted.dcm"]))
    assert len(of_files) == len(of_frames) == 2
    for one, other in zip(of_files, of_frames, strict=True):
        np.testing.assert_array_equal(load_series(one).voxels, load_series(other).voxels)
        np.testing.assert_allclose(load_series(one).affine, load_series(other).affine)


TWICE = [at(APART_MM * place, StackID="1") for place in range(2) for _ in range(2)]


@pytest.mark.parametrize(
    ("further", "dimensions", "sentence"),
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
def test_what_is_no_volume_and_no_cine_is_refused(
    tmp_path: Path, further: list[Mapping[str, Any]], dimensions: list[str], sentence: str
) -> None:
    frames = [{**frame, **further[number % 2]} for number, frame in enumerate(TWICE)]
    path = save_enhanced(tmp_path / "a.dcm", noise(4), frames, dimensions=dimensions)
    with pytest.raises(DataError, match=sentence) as caught:
        phases_of(read_slices([path]))
    assert str(path) in str(caught.value)


def test_two_frames_at_one_place_are_no_volume(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise(4), [at(height) for height in (0.0, 6.0, 6.0, 12.0)])
    (slices,) = phases_of(read_slices([path]))
    with pytest.raises(DataError, match=r"frame 3: lies at the position of \S+ frame 2; keep .* echoes export each"):
        require_even(slices)


def test_a_frame_that_is_missing_is_named(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise(4), [at(height) for height in (0.0, 6.0, 18.0, 24.0)])
    with pytest.raises(DataError, match=r"a\.dcm, frame 2: 12.00 mm from its neighbour \S+a\.dcm, frame 3, but other"):
        require_even(read_slices([path]))


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"NumberOfFrames": 3}, r"a\.dcm: holds 3 frames but describes 2"),
        ({"PerFrameFunctionalGroupsSequence": None}, "holds 2 frames without their positions .* one slice per"),
        ({"SharedFunctionalGroupsSequence": None}, "a.dcm, frame 1: DICOM without PixelSpacing, ImageOrientation"),
        ({"PixelData": b"\0\0"}, r"a\.dcm: its pixels cannot be decoded .*; copy or export it again"),
        ({"PixelData": None}, r"a\.dcm: its pixels cannot be decoded"),
        ({"SamplesPerPixel": 3}, r"a\.dcm: its pixels cannot be decoded"),
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, tags: dict[str, Any], sentence: str) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise(2), [at(0.0), at(6.0)], tags=tags)
    with pytest.raises(DataError, match=sentence) as caught:
        load_series(read_slices([path]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [{"RescaleSlope": 1e38, "RescaleIntercept": 1e38}, {"RescaleSlope": float("nan")}])
def test_intensities_that_are_not_finite_are_refused(tmp_path: Path, scale: dict[str, float]) -> None:
    frames = [at(0.0), at(6.0, **{"RescaleIntercept": 0, **scale})]
    path = save_enhanced(tmp_path / "a.dcm", noise(2), frames)
    with pytest.raises(DataError, match=r"a\.dcm: some pixels are NaN or infinite|frame 2: a damaged header"):
        load_series(read_slices([path]))


def test_data_sets_take_one_slice_a_file(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise(2), [at(0.0), at(6.0)])
    with pytest.raises(DataError, match="holds 2 frames, but each file must hold one grey slice"):
        load_series([path])


def test_headers_that_were_read_are_not_read_again(tmp_path: Path) -> None:
    for phase in range(2):
        for place in range(2):
            path, where = tmp_path / f"{phase}{place}.dcm", (0.0, 0.0, APART_MM * place)
            tags = {"TriggerTime": 30 * phase}
            save_slice(path, noise(1)[0], spacing_mm=1, thickness_mm=6, position=where, series="s", number=1, tags=tags)
    slices = read_slices(sorted(tmp_path.iterdir()))
    for path in tmp_path.iterdir():
        path.unlink()
    for phase in phases_of(slices):
        require_even(phase)
        assert len({one.path.name[0] for one in phase}) == 1
