"""Behaviour that plain folders and nnU-Net's layout share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom_datasets import check_problems, config_of

from maag.data.cache.preparing import prepare
from maag.data.catalog import preset
from maag.data.check import check
from maag.data.files.label_files import load_image
from maag.data.geometry import plan_grid
from maag.errors import DataError


@pytest.mark.parametrize("name", ["folders", "nnunet"])
def test_the_check_reports_every_bad_image(copy_of: Callable[[str], Path], name: str) -> None:
    root = copy_of(name)
    images = sorted(path for path in root.rglob("images*/*") if path.is_file())
    images[0].write_text("no image")
    images[1].unlink()
    images[1].symlink_to("nowhere")
    found = check_problems(name, root)
    assert f"{images[0]}: not a readable NIfTI file" in found
    assert f"cannot read {images[1]}" in found
    for path in images[2:]:
        path.write_text("no image")
    with pytest.raises(DataError, match="not a readable NIfTI file"):
        preset(name, "paper", root)


@pytest.mark.parametrize("name", ["folders", "nnunet"])
def test_labels_with_another_origin_than_their_image_are_noted(
    copy_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    root = copy_of(name)
    for folder in ("labelsTr", "masks", "scribbles"):
        for path in sorted(root.glob(f"{folder}/*"))[:2]:
            image = nib.load(path)
            affine = image.affine.copy()
            affine[:3, 3] += 30
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    moved = 4 if name == "folders" else 2
    data = config_of(name, root).data
    (merged_note,) = (note for note in check(root, data).notes if "its header has origin" in note)
    assert merged_note.startswith(f"{moved} cases, ")
    notes = [note for case in prepare(root, data, tmp_path / "cache").cases for note in case.notes]
    assert sum("(30, 30, 30) mm, its image's (0, 0, 0) mm" in note for note in notes) == moved


@pytest.mark.parametrize("spacing_mm", [0.7421875, 0.5859375, 2 / 3, 1 / 3, 0.7])
def test_images_of_one_spacing_are_not_resampled(tmp_path: Path, spacing_mm: float) -> None:
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((512, 512, 1), np.uint8), np.diag([spacing_mm, spacing_mm, 5, 1])), path)
    grid = plan_grid(load_image([path]), preset("folders", "paper", tmp_path).data)
    assert grid.source_shape == grid.resized_shape == grid.size_px == (512, 512)
