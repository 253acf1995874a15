"""Notes on headers that disagree between labels and images, or among the images of a data set."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from oblique_grid import OBLIQUE, SHAPE

from maag.data.files.header_agreement import (
    differing_orientations,
    header_differences,
    minority_orientations,
    minority_slice_axes,
)


def test_images_that_differ_from_the_majority_are_reported() -> None:
    assert minority_orientations({}) == minority_orientations({"a": None, "b": "LPS"}) == []
    (note,) = minority_orientations({"a": "LPS", "b": "RAS", "c": "LPS", "d": None})
    assert note.startswith("1 image has orientation RAS in the header, 2 have LPS; the first is b: voxels are used")
    assert minority_orientations({"a": "LPS", "b": "LPI", "c": "LPS"}) == []  # the order of slices does not count
    assert [
        note[:20] for note in minority_orientations({"a": "LPS", "b": "LSP", "c": "LPI", "d": "RAS", "e": "LSA"})
    ] == [
        "2 images have orient",
        "1 image has orientat",
    ]
    thick, across, even = (8.0, 1.0, 1.0), (1.0, 1.0, 8.0), (1.0, 1.0, 1.0)
    assert (
        minority_slice_axes({})
        == minority_slice_axes({"a": thick, "b": even})
        == minority_slice_axes({"a": even, "b": even, "c": across})
        == []
    )
    (note,) = minority_slice_axes({"a": thick, "b": across, "c": thick})
    assert note.startswith("1 image has the thickest voxels along x, 2 along z; the first is b: slices are taken")
    (note,) = minority_slice_axes({"a": thick, "b": (1.0, 8.0, 1.0), "c": thick})
    assert note.startswith("1 image has the thickest voxels along y, 2 along z; the first is b: slices are taken")
    assert minority_slice_axes({"a": thick, "b": thick, "c": (1.0, 1.0, 1.05)}) == []  # nearly isotropic


def test_cases_oriented_differently_from_the_training_images_are_counted() -> None:
    orientations = {"a": "LPI", "b": "RAS", "c": None, "d": "LSP"}
    assert differing_orientations(orientations, []) is None
    assert differing_orientations(orientations, ["LPS", "RAI", "LSA"]) is None
    sentence = differing_orientations(orientations, ["LPS", "LAS"])
    assert sentence is not None
    assert sentence.startswith("2 cases are oriented differently from the training images (LPS or LAS),")
    assert sentence.endswith("the first is b (RAS)")
    assert (differing_orientations(orientations, ["LPS", "LSA"]) or "").startswith("1 case is oriented differently")


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("voxels", "reported"), [(0.6, True), (-0.6, True), (0.4, False), (-0.4, False)])
def test_an_origin_more_than_half_a_voxel_off_is_reported(
    image: Path, tmp_path: Path, axis: int, voxels: float, reported: bool
) -> None:
    moved = OBLIQUE.copy()
    moved[:3, 3] += voxels * OBLIQUE[:3, axis]
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), moved), tmp_path / "labels.nii.gz")
    assert bool(header_differences(tmp_path / "labels.nii.gz", image, origins=True)) == reported
