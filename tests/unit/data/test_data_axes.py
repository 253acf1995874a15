"""To where axes point by the header, and that an image laid otherwise is the same image in the world."""

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

from maag.data.files.axes import Reorientation, lies_otherwise, plain_axes
from maag.data.files.volume import Volume, load_channels, load_volume

ALL_AXES = ["".join(axes) for lines in permutations(["LR", "PA", "SI"]) for axes in product(*lines)]


def affine_of(axes: str, sizes: tuple[float, float, float] = (1.0, 2.0, 3.0)) -> NDArray[np.float64]:
    """Voxels of these sizes along (x, y, z), their axes to where the letters say; nibabel's letters are of RAS."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (letter, size) in enumerate(zip(axes, sizes, strict=True)):
        row = next(row for row, line in enumerate(("LR", "PA", "SI")) if letter in line)
        affine[row, axis] = size if letter in "RAS" else -size
    affine[:3, 3] = (-20.0, 33.0, 7.0)
    return affine


def volume_of(axes: str) -> Volume:
    voxels = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    return Volume(voxels, (3.0, 2.0, 1.0), affine_of(axes), axes)


@pytest.mark.parametrize("axes", ALL_AXES)
def test_axes_are_named_by_where_they_point(axes: str) -> None:
    assert plain_axes(affine_of(axes)) == axes


def test_axes_a_little_off_keep_their_names_and_oblique_ones_have_none() -> None:
    def turned(degrees: float) -> NDArray[np.float64]:
        affine = affine_of("LPS")
        affine[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix() @ affine[:3, :3]
        return affine

    assert plain_axes(turned(30)) == "LPS"
    assert plain_axes(turned(40)) is None


def test_an_axis_without_length_has_no_name() -> None:
    affine = affine_of("LPS")
    affine[:3, 1] = 0
    assert plain_axes(affine) is None


def test_slices_lie_alike_in_whatever_order_they_are() -> None:
    assert not lies_otherwise("LPS", ["RAS", "LPI"])
    assert lies_otherwise("LAS", ["RAS", "LPI"])
    assert lies_otherwise("LSP", ["LPS"])


def test_where_nothing_tells_slices_are_taken_to_lie_alike() -> None:
    assert not lies_otherwise(None, ["LPS"])
    assert not lies_otherwise("RAS", [])


@given(axes=st.sampled_from(ALL_AXES), wanted=st.sampled_from(ALL_AXES))
def test_a_laid_image_is_the_same_in_the_world_and_comes_back(axes: str, wanted: str) -> None:
    volume, way = volume_of(axes), Reorientation.onto(axes, wanted)
    laid = volume.laid(way)
    assert not lies_otherwise(way.wanted, [wanted])
    assert plain_axes(laid.affine) == laid.axes == way.wanted
    assert laid.voxels.flags.c_contiguous
    np.testing.assert_allclose(laid.spacing_mm, np.linalg.norm(laid.affine[:3, :3], axis=0)[::-1])
    places = np.indices(laid.shape[::-1]).reshape(3, -1)  # (x, y, z) of every voxel
    world = laid.affine @ np.vstack([places, np.ones_like(places[:1])])
    there = np.rint(np.linalg.solve(volume.affine, world)[:3]).astype(int)
    np.testing.assert_array_equal(laid.voxels.T[tuple(places)], volume.voxels.T[tuple(there)])
    np.testing.assert_array_equal(way.back(laid.voxels), volume.voxels)


@given(axes=st.sampled_from(ALL_AXES), wanted=st.sampled_from(ALL_AXES))
def test_slices_stay_in_their_order_where_the_image_is_not_cut_anew(axes: str, wanted: str) -> None:
    way = Reorientation.onto(axes, wanted)
    assert way.keeps_slices == any({axes[2], wanted[2]} <= set(line) for line in ("LR", "PA", "SI"))
    if way.keeps_slices:
        volume = volume_of(axes)
        some = volume.voxels[:, 1:].swapaxes(0, 1)  # (slices, channels, Y, X), as probabilities come
        laid = volume.laid(way).voxels[:, 1:].swapaxes(0, 1)
        np.testing.assert_array_equal(way.back(laid), some)


def test_a_file_tells_its_axes_unless_its_header_does_not(tmp_path: Path) -> None:
    for name, affine in (("told", affine_of("LPS")), ("untold", None)):
        nib.save(nib.Nifti1Image(np.zeros((5, 4, 3), np.float32), affine), tmp_path / f"{name}.nii.gz")
    assert load_volume(tmp_path / "told.nii.gz").axes == "LPS"
    assert load_channels([tmp_path / "told.nii.gz"] * 2).axes == "LPS"
    assert load_volume(tmp_path / "untold.nii.gz").axes is None
