"""Images and labels whose headers lie otherwise are told."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from oblique import OBLIQUE, SHAPE

from maag.data.files.orientation import differences, lying_otherwise, odd_axes, odd_slices


def test_images_that_lie_otherwise_than_most_are_told() -> None:
    assert odd_axes({}) == odd_axes({"a": None, "b": "LPS"}) == []
    (note,) = odd_axes({"a": "LPS", "b": "RAS", "c": "LPS", "d": None})
    assert note.startswith("1 image has axes RAS in the header, 2 have LPS; the first is b: voxels are taken")
    assert odd_axes({"a": "LPS", "b": "LPI", "c": "LPS"}) == []  # slices in another order lie as the others
    assert [note[:17] for note in odd_axes({"a": "LPS", "b": "LSP", "c": "LPI", "d": "RAS", "e": "LSA"})] == [
        "2 images have axe",
        "1 image has axes ",
    ]
    thick, across, even = (8.0, 1.0, 1.0), (1.0, 1.0, 8.0), (1.0, 1.0, 1.0)
    assert (
        odd_slices({}) == odd_slices({"a": thick, "b": even}) == odd_slices({"a": even, "b": even, "c": across}) == []
    )
    (note,) = odd_slices({"a": thick, "b": across, "c": thick})
    assert note.startswith("1 image has the thickest voxels along x, 2 along z; the first is b: slices are taken")
    (note,) = odd_slices({"a": thick, "b": (1.0, 8.0, 1.0), "c": thick})
    assert note.startswith("1 image has the thickest voxels along y, 2 along z; the first is b: slices are taken")
    assert odd_slices({"a": thick, "b": thick, "c": (1.0, 1.0, 1.05)}) == []  # as good as even


def test_cases_that_lie_otherwise_than_those_that_train_are_counted() -> None:
    axes = {"a": "LPI", "b": "RAS", "c": None, "d": "LSP"}
    assert lying_otherwise(axes, []) is None
    assert lying_otherwise(axes, ["LPS", "RAI", "LSA"]) is None
    sentence = lying_otherwise(axes, ["LPS", "LAS"])
    assert sentence is not None
    assert sentence.startswith("2 cases lie otherwise than the images that train, which have axes LPS or LAS in their")
    assert "the first is b with RAS," in sentence
    assert (lying_otherwise(axes, ["LPS", "LSA"]) or "").startswith("1 case lies otherwise")


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("voxels", "told"), [(0.6, True), (-0.6, True), (0.4, False), (-0.4, False)])
def test_an_origin_more_than_half_a_voxel_aside_is_told(
    image: Path, tmp_path: Path, axis: int, voxels: float, told: bool
) -> None:
    moved = OBLIQUE.copy()
    moved[:3, 3] += voxels * OBLIQUE[:3, axis]
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), moved), tmp_path / "labels.nii.gz")
    assert bool(differences(tmp_path / "labels.nii.gz", image, origins=True)) == told
