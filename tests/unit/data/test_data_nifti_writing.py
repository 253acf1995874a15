"""NIfTI files are written reproducibly and completely or not at all."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from oblique_grid import OBLIQUE
from scipy.spatial.transform import Rotation

from maag.data.files.nifti_writing import ProbabilityWriter, description_of, fit_description, save_volume
from maag.errors import StorageError


def test_equal_volumes_are_written_as_equal_bytes(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name in ("a.nii.gz", "b.nii.gz"):
        save_volume(tmp_path / name, array, np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_is_replaced_and_never_overwritten_in_place(tmp_path: Path, suffix: str) -> None:
    path, hard_link = tmp_path / f"a{suffix}", tmp_path / "same"
    save_volume(path, np.zeros((2, 3, 4), np.int16), np.eye(4))
    before = path.read_bytes()
    hard_link.hardlink_to(path)  # like a reader that opened the file before
    save_volume(path, np.ones((2, 3, 4), np.int16), np.eye(4))
    assert hard_link.read_bytes() == before
    assert path.read_bytes() != before


@pytest.mark.slow
def test_cine_probabilities_are_written_as_nibabel_writes_them(tmp_path: Path) -> None:
    # One class is larger than the block of zeros with which checksums are combined.
    probabilities = np.random.default_rng(0).random((2, 3, 4, 250, 301)).astype(np.float32)
    for name in ("p.nii.gz", "q.nii.gz"):
        with ProbabilityWriter(tmp_path / "new" / name, 4) as writer:
            for slices in (frame[start : start + 2] for frame in probabilities for start in (0, 2)):
                writer.add(slices)
            writer.finish(2, OBLIQUE)
    image = nib.Nifti1Image(probabilities.transpose(4, 3, 1, 0, 2), OBLIQUE)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    packed = (tmp_path / "new" / "p.nii.gz").read_bytes()
    assert gzip.decompress(packed) == image.to_bytes()
    assert packed == (tmp_path / "new" / "q.nii.gz").read_bytes()
    assert len(packed) < probabilities.nbytes
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"p.nii.gz", "q.nii.gz"}


@pytest.mark.slow
def test_incomplete_probabilities_stay_neither_in_memory_nor_on_disk(tmp_path: Path) -> None:
    slices = np.random.default_rng(0).random((2, 2, 256, 256)).astype(np.float32)
    tracemalloc.start()
    with ProbabilityWriter(tmp_path / "p.nii.gz", 2) as writer:
        for _ in range(20):
            writer.add(slices)
        memory = tracemalloc.get_traced_memory()[1]
        assert not list(tmp_path.iterdir())
    tracemalloc.stop()
    assert memory < 4 * slices.nbytes
    assert not list(tmp_path.iterdir())


def test_an_unwritable_probability_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*p\.nii\.gz: a file of this name is in the way"):
        ProbabilityWriter(tmp_path / "file" / "p.nii.gz", 2)


def test_a_description_holds_79_bytes() -> None:
    for length, fits in ((79, True), (80, False)):
        name = "x" * (length - len("0 "))
        assert fit_description([name]) == fits
        assert description_of([name]) == f"0 {name}"[:79].encode()


@pytest.mark.parametrize(
    ("shear", "codes"), [(0.0, (1, 1)), (0.02, (1, 1)), (1.5, (0, 1))], ids=["none", "rounded", "tilted"]
)
def test_a_qform_is_written_only_if_it_can_represent_the_affine(
    tmp_path: Path, shear: float, codes: tuple[int, int]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (10, -20, 30), degrees=True).as_matrix() * [1.2, 1.3, 8.0]
    affine[:3, 2] += shear * affine[:3, 1]
    save_volume(tmp_path / "a.nii.gz", np.zeros((2, 20, 30, 40), np.uint8), affine)
    image = nib.load(tmp_path / "a.nii.gz")
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == codes
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    if codes[0]:
        corner = [39, 29, 19, 1]
        np.testing.assert_allclose(image.get_qform() @ corner, affine @ corner, atol=0.6)  # half a voxel
