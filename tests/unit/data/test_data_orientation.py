"""Orientation codes of headers, and reorientation that preserves world coordinates."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from maag.data.files.orientation import Reorientation, orientation_code, orientation_differs
from maag.data.files.volume import Volume, load_channels, load_volume

ALL_CODES = ["".join(code) for lines in permutations(["LR", "PA", "SI"]) for code in product(*lines)]


def affine_of(code: str, sizes: tuple[float, float, float] = (1.0, 2.0, 3.0)) -> NDArray[np.float64]:
    """Affine in orientation `code` of voxels of these sizes (x, y, z) in mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (letter, size) in enumerate(zip(code, sizes, strict=True)):
        row = next(row for row, line in enumerate(("LR", "PA", "SI")) if letter in line)
        affine[row, axis] = size if letter in "RAS" else -size
    affine[:3, 3] = (-20.0, 33.0, 7.0)
    return affine


def volume_of(code: str) -> Volume:
    voxels = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    return Volume(voxels, (3.0, 2.0, 1.0), affine_of(code), code)


@pytest.mark.parametrize("code", ALL_CODES)
def test_an_orientation_code_gives_the_direction_of_each_axis(code: str) -> None:
    assert orientation_code(affine_of(code)) == code


def test_slightly_rotated_axes_keep_their_code_and_oblique_ones_have_none() -> None:
    def rotated(degrees: float) -> NDArray[np.float64]:
        affine = affine_of("LPS")
        affine[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix() @ affine[:3, :3]
        return affine

    assert orientation_code(rotated(30)) == "LPS"
    assert orientation_code(rotated(40)) is None


def test_an_affine_with_a_zero_length_axis_has_no_code() -> None:
    affine = affine_of("LPS")
    affine[:3, 1] = 0
    assert orientation_code(affine) is None


def test_reversed_slice_order_alone_is_not_a_different_orientation() -> None:
    assert not orientation_differs("LPS", ["RAS", "LPI"])
    assert orientation_differs("LAS", ["RAS", "LPI"])
    assert orientation_differs("LSP", ["LPS"])


def test_an_unknown_orientation_does_not_differ() -> None:
    assert not orientation_differs(None, ["LPS"])
    assert not orientation_differs("RAS", [])


@given(source=st.sampled_from(ALL_CODES), target=st.sampled_from(ALL_CODES))
def test_reorientation_preserves_world_coordinates_and_is_invertible(source: str, target: str) -> None:
    volume, reorientation = volume_of(source), Reorientation.between(source, target)
    reoriented = volume.reoriented(reorientation)
    assert not orientation_differs(reorientation.target, [target])
    assert orientation_code(reoriented.affine) == reoriented.orientation == reorientation.target
    assert reoriented.voxels.flags.c_contiguous
    np.testing.assert_allclose(reoriented.spacing_mm, np.linalg.norm(reoriented.affine[:3, :3], axis=0)[::-1])
    indices = np.indices(reoriented.shape[::-1]).reshape(3, -1)  # (x, y, z) of every voxel
    world = reoriented.affine @ np.vstack([indices, np.ones_like(indices[:1])])
    original = np.rint(np.linalg.solve(volume.affine, world)[:3]).astype(int)
    np.testing.assert_array_equal(reoriented.voxels.T[tuple(indices)], volume.voxels.T[tuple(original)])
    np.testing.assert_array_equal(reorientation.invert(reoriented.voxels), volume.voxels)


@given(source=st.sampled_from(ALL_CODES), target=st.sampled_from(ALL_CODES))
def test_a_reorientation_that_keeps_slices_inverts_a_stack_of_them(source: str, target: str) -> None:
    reorientation = Reorientation.between(source, target)
    assert reorientation.keeps_slices == any({source[2], target[2]} <= set(line) for line in ("LR", "PA", "SI"))
    if reorientation.keeps_slices:
        volume = volume_of(source)
        some = volume.voxels[:, 1:].swapaxes(0, 1)  # (slices, channels, Y, X), as probabilities come
        reoriented = volume.reoriented(reorientation).voxels[:, 1:].swapaxes(0, 1)
        np.testing.assert_array_equal(reorientation.invert(reoriented), some)


def test_a_volume_takes_its_orientation_from_the_header_if_recorded(tmp_path: Path) -> None:
    for name, affine in (("known", affine_of("LPS")), ("unknown", None)):
        nib.save(nib.Nifti1Image(np.zeros((5, 4, 3), np.float32), affine), tmp_path / f"{name}.nii.gz")
    assert load_volume(tmp_path / "known.nii.gz").orientation == "LPS"
    assert load_channels([tmp_path / "known.nii.gz"] * 2).orientation == "LPS"
    assert load_volume(tmp_path / "unknown.nii.gz").orientation is None
