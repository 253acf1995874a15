"""Enhanced files: every frame lies in the volume where its functional groups put it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from enhanced_dicom import FRAME_SHAPE, frame_at, noise_frames, save_enhanced
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
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
from maag.errors import DataError

ROW_SPACING_MM, COLUMN_SPACING_MM, SLICE_SPACING_MM = 2.5, 0.75, 6.0


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
def test_affine_maps_every_pixel_to_the_position_in_its_frame(
    tmp_path_factory: pytest.TempPathFactory, seed: int, order: list[int], tilt: float, per_frame: bool, syntax: str
) -> None:
    axes = Rotation.random(random_state=seed).as_matrix()  # along a row, along a column, across
    step = SLICE_SPACING_MM * (axes[2] + tilt * axes[1])
    origin = np.array([-30.0, 12.0, 70.0])
    stored = noise_frames(len(order))
    common = {
        "ImageOrientationPatient": [float(value) for value in axes[:2].ravel().round(9)],
        "PixelSpacing": [ROW_SPACING_MM, COLUMN_SPACING_MM],
        "SpacingBetweenSlices": SLICE_SPACING_MM,
    }
    frames = [
        {
            "ImagePositionPatient": [float(value) for value in (origin + index * step).round(6)],
            "RescaleSlope": index + 2,
            "RescaleIntercept": -7,
            **(common if per_frame else {}),
        }
        for index in order
    ]
    path = tmp_path_factory.mktemp("enhanced") / "a.dcm"
    shared = dict.fromkeys(common) if per_frame else common
    save_enhanced(path, stored, frames, shared=shared, syntax=syntax)
    slices = read_slices([path])
    assert [list(phase) for phase in phases_of(slices)] == [slices]
    require_even(slices)
    volume = load_series(slices)
    for frame, index in enumerate(order):
        np.testing.assert_allclose(volume.voxels[0, index], (index + 2.0) * stored[frame] - 7)
        for row, column in np.ndindex(FRAME_SHAPE):
            patient = origin + index * step + column * COLUMN_SPACING_MM * axes[0] + row * ROW_SPACING_MM * axes[1]
            np.testing.assert_allclose((volume.affine @ [column, row, index, 1])[:3], patient * [-1, -1, 1], atol=1e-3)
    assert volume.spacing_mm == pytest.approx((SLICE_SPACING_MM, ROW_SPACING_MM, COLUMN_SPACING_MM), rel=1e-4)


@pytest.mark.slow
def test_highdicom_reads_the_same_volume(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(4), [frame_at(height) for height in (12.0, 0.0, 18.0, 6.0)])
    volume, reference = load_series(read_slices([path])), highdicom.imread(path).get_volume()
    to_nifti = np.linalg.inv(volume.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0]) @ reference.affine
    for index in np.ndindex(reference.array.shape):
        x, y, z = np.rint(to_nifti @ [*index, 1]).astype(int)[:3]
        assert volume.voxels[0, z, y, x] == reference.array[index]


def test_the_position_of_a_single_frame_may_be_in_the_shared_groups(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(1), [{}], shared=frame_at(30.0))
    assert load_series(read_slices([path])).affine[:, 3].tolist() == [0, 0, 30, 1]


def test_two_frames_at_one_position_are_refused(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(4), [frame_at(height) for height in (0.0, 6.0, 6.0, 12.0)])
    (slices,) = phases_of(read_slices([path]))
    with pytest.raises(DataError, match=r"frame 3: lies at the position of \S+ frame 2; keep .* echoes export each"):
        require_even(slices)


def test_a_missing_frame_is_reported(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(4), [frame_at(height) for height in (0.0, 6.0, 18.0, 24.0)])
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
def test_a_broken_enhanced_file_is_reported_in_one_line(tmp_path: Path, tags: dict[str, Any], sentence: str) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(2), [frame_at(0.0), frame_at(6.0)], tags=tags)
    with pytest.raises(DataError, match=sentence) as caught:
        load_series(read_slices([path]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [{"RescaleSlope": 1e38, "RescaleIntercept": 1e38}, {"RescaleSlope": float("nan")}])
def test_non_finite_intensities_are_refused(tmp_path: Path, scale: dict[str, float]) -> None:
    frames = [frame_at(0.0), frame_at(6.0, **{"RescaleIntercept": 0, **scale})]
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(2), frames)
    with pytest.raises(DataError, match=r"a\.dcm: some pixels are NaN or infinite|frame 2: a damaged header"):
        load_series(read_slices([path]))


@pytest.mark.parametrize("place", ["root", "shared", "frame"])
@pytest.mark.parametrize("rescaled", [True, False])
def test_a_modality_lut_is_refused(tmp_path: Path, place: str, rescaled: bool) -> None:
    """Frames would otherwise have the intensities of their stored values."""
    item = Dataset()
    item.LUTDescriptor = [4, 0, 16]
    item.add_new("LUTData", "US", [7, 5, 3, 1])
    lut, rescaling = {"ModalityLUTSequence": [item]}, {"RescaleSlope": 2, "RescaleIntercept": 0} if rescaled else {}
    frames = [frame_at(0.0, **rescaling), frame_at(6.0, **rescaling, **(lut if place == "frame" else {}))]
    path = save_enhanced(
        tmp_path / "a.dcm",
        noise_frames(2),
        frames,
        shared=lut if place == "shared" else None,
        tags=lut if place == "root" else None,
    )
    with pytest.raises(DataError, match=r"a\.dcm: an enhanced file with a Modality LUT .* as classic DICOM, or"):
        read_slices([path])


def test_data_sets_refuse_files_with_several_frames(tmp_path: Path) -> None:
    path = save_enhanced(tmp_path / "a.dcm", noise_frames(2), [frame_at(0.0), frame_at(6.0)])
    with pytest.raises(DataError, match="holds 2 frames, but each file must hold one grey slice"):
        load_series([path])
