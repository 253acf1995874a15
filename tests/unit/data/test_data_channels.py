"""Several files on one grid are read as the channels of one image."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from oblique_grid import SHAPE
from scipy.spatial.transform import Rotation

from maag.data.files.header_agreement import header_orientation
from maag.data.files.nifti import closest_orientation_of, open_nifti
from maag.data.files.volume import load_channels
from maag.errors import DataError


def test_reading_one_channel_does_not_hold_the_image_twice(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 1000, (64, 64, 64)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "image.nii.gz")
    load_channels([tmp_path / "image.nii.gz"])
    tracemalloc.start()
    load_channels([tmp_path / "image.nii.gz"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.8 * 4 * array.size


def save_rotated(path: Path, degrees: float) -> Path:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine), path)
    return path


def test_rounding_of_axes_half_way_between_two_codes_does_not_make_another_grid(tmp_path: Path) -> None:
    paths = [save_rotated(tmp_path / f"{place}.nii.gz", 45 + 1e-4 * (place - 0.5)) for place in range(2)]
    assert len({closest_orientation_of(open_nifti(path)) for path in paths}) == 2
    assert load_channels(paths).voxels.shape[0] == 2


def test_oblique_channels_of_the_same_closest_code_but_other_axes_are_refused(tmp_path: Path) -> None:
    paths = [save_rotated(tmp_path / f"{place}.nii.gz", degrees) for place, degrees in enumerate((-44, 44))]
    assert len({closest_orientation_of(open_nifti(path)) for path in paths}) == 1
    with pytest.raises(DataError, match=r"1\.nii\.gz: a channel with orientation .* and other axes, so one is"):
        load_channels(paths)


def test_a_channel_without_orientation_takes_that_of_the_others(tmp_path: Path) -> None:
    """Predictions would not be reoriented otherwise, depending on which channel comes first."""
    affine, silent = np.diag([-1.0, -1, 8, 1]), nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([1.0, 1, 8, 1]))
    silent.set_sform(None, 0)
    silent.set_qform(None, 0)
    paths = [tmp_path / "silent.nii.gz", tmp_path / "known.nii.gz"]
    nib.save(silent, paths[0])
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.int16), affine), paths[1])
    for order in (paths, paths[::-1]):
        found = load_channels(order)
        assert found.orientation == header_orientation(order) == "LPS"
        np.testing.assert_array_equal(found.affine, affine)
        assert found.voxels[:, 0, 0, 0].tolist() == [float(path.name == "known.nii.gz") for path in order]


def test_mirrored_channels_are_refused(image: Path, tmp_path: Path) -> None:
    no_orientation, mirrored = tmp_path / "silent.nii.gz", tmp_path / "mirrored.nii.gz"
    source = nib.load(image)
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), np.diag([-1, 1, 1, 1]) @ source.affine), mirrored)
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), None, source.header), no_orientation)
    header = nib.load(image).header
    header["qform_code"] = header["sform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), None, header), no_orientation)
    assert load_channels([image, no_orientation, image]).voxels.shape == (3, 3, 9, 7)
    with pytest.raises(
        DataError, match=r"mirrored\.nii\.gz: a channel with orientation LAS in its header beside .* with RAS"
    ):
        load_channels([image, no_orientation, mirrored])


@pytest.mark.parametrize(("shape", "sides"), [((7, 8, 3), (1, 1, 8)), (SHAPE, (1, 1.01, 8)), (SHAPE, (1, 1, 4))])
def test_channels_on_different_grids_are_refused(
    tmp_path: Path, shape: tuple[int, ...], sides: Sequence[float]
) -> None:
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([1, 1, 8, 1])), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.diag([*sides, 1])), tmp_path / "b.nii.gz")
    with pytest.raises(DataError, match=r"b\.nii\.gz: a channel of \(7, \d, 3\) voxels of .* resample them to one"):
        load_channels([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"])


def test_channels_of_cines_are_read_at_the_same_frame(tmp_path: Path) -> None:
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    cines = np.random.default_rng(0).integers(0, 99, (2, *SHAPE, 4)).astype(np.int16)
    for path, cine in zip(paths, cines, strict=True):
        nib.save(nib.Nifti1Image(cine, np.eye(4)), path)
    np.testing.assert_array_equal(load_channels(paths, 2).voxels, cines[..., 2].transpose(0, 3, 2, 1))
