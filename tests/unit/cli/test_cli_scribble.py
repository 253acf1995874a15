"""`maag data scribble`: its inputs, its reports, and the files that it leaves alone."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from maag.cli import data as cli_data
from maag.cli.main import commands
from maag.data.files.pictures import load_indices, open_picture
from maag.data.scribbles.styles import STYLES


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(commands, ["data", "scribble", *map(str, words)])
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


@pytest.mark.slow
def test_scribble_processes_folders_and_reports_bad_masks(phantom_dir: Path, tmp_path: Path) -> None:
    code, text = run(phantom_dir, "--out", tmp_path / "out", "--style", "random-walk", "--unlabelled", 9)
    assert code == 0, text
    masks = sorted(phantom_dir.rglob("*_gt.nii.gz"))
    assert len(list((tmp_path / "out").glob("*_scribble.nii.gz"))) == len(masks)
    assert open_picture(tmp_path / "out-sheet.png").size[0] > 300
    mask = nib.load(masks[0])
    scribble = nib.load(tmp_path / "out" / masks[0].name.replace("_gt", "_scribble"))
    np.testing.assert_array_equal(mask.affine, scribble.affine)
    drawn, truth = np.asarray(scribble.dataobj), np.asarray(mask.dataobj)
    assert (drawn == truth)[drawn != 9].all()

    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "bad_gt.nii.gz").write_text("no")
    Image.fromarray(np.kron(np.eye(2), np.ones((8, 8))).astype(np.uint8)).save(tmp_path / "masks" / "good_gt.png")
    code, text = run(tmp_path / "masks", "--out", tmp_path / "second", "--style", "skeleton")
    assert "bad_gt.nii.gz: not a readable NIfTI" in text
    assert "1 of 2 masks could not be scribbled" in text
    assert set(np.unique(load_indices(tmp_path / "second" / "good_scribble.png"))) == {0, 1, 2}


def test_black_and_white_masks_and_broken_links_are_reported_and_skipped(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    plane = np.kron(np.eye(2), np.ones((8, 8))).astype(np.uint8)
    Image.fromarray(plane * 255).save(tmp_path / "masks" / "white_gt.png")
    (tmp_path / "masks" / "dead_gt.png").symlink_to(tmp_path / "nowhere.png")
    scaled = nib.Nifti1Image(plane[:, :, None] * np.float32(0.99999994), np.eye(4))
    nib.save(scaled, tmp_path / "masks" / "scaled_gt.nii")
    code, text = run(tmp_path / "masks", "--out", tmp_path / "out", "--style", "skeleton")
    assert code != 0
    assert "2 of 3 masks could not be scribbled" in text
    white = "white_gt.png: 128 voxels have label 255, allowed are 0 to 254; save a black and white mask with 1 where it"
    assert white in text
    assert f"dead_gt.png: a broken link to {tmp_path / 'nowhere.png'}" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scaled_scribble.nii.gz"]
    assert set(np.unique(np.asarray(nib.load(tmp_path / "out" / "scaled_scribble.nii.gz").dataobj))) == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file systems refuse such names")
def test_mask_with_a_non_utf8_name_is_scribbled(tmp_path: Path) -> None:
    mask = tmp_path / "masks" / os.fsdecode(b"f\xedgado $_$ _gt.png")
    mask.parent.mkdir()
    Image.fromarray(np.kron(np.eye(2), np.ones((8, 8))).astype(np.uint8)).save(mask)
    code, text = run(mask.parent, "--out", tmp_path / "out", "--style", "random-walk")
    assert code == 0, text
    assert (tmp_path / "out" / os.fsdecode(b"f\xedgado $_$ _scribble.png")).is_file()


@pytest.mark.slow
def test_scribbles_of_a_data_set_can_be_used_as_its_source(phantoms: Path, tmp_path: Path) -> None:
    from maag.data.catalog import find_cases, preset

    code, text = run(phantoms / "chaos", "--dataset", "chaos", "--out", tmp_path / "mine", "--style", "skeleton")
    assert code == 0, text
    cases = find_cases(preset("chaos", "fast").data, phantoms / "chaos", [str(tmp_path / "mine")])
    assert [[scribble.rater for scribble in case.scribbles] for case in cases] == [["mine"]] * 3


def test_classes_and_unlabelled_value_of_a_data_set_are_its_own(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    words = (copy_of("folders"), "--dataset", "folders", "--style", "skeleton", "--out", tmp_path / "mine")
    code, text = run(*words, "--classes", 3)
    assert code != 0
    assert "--classes 3: --dataset folders has its own classes; leave --classes out" in text
    assert not (tmp_path / "mine").exists()
    code, text = run(*words, "--set", "data.unlabelled_value=200")
    assert code == 0, text
    scribble = next((tmp_path / "mine").iterdir())
    assert set(np.unique(np.asarray(nib.load(scribble).dataobj))) == {0, 1, 2, 3, 200}


@pytest.mark.slow
def test_existing_scribbles_are_replaced_only_with_overwrite(phantom_dir: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "out" / "patient001_frame01_scribble.nii.gz"
    drawn.parent.mkdir()
    drawn.write_text("by hand")
    words = (phantom_dir, "--out", tmp_path / "out", "--style", "skeleton", "--unlabelled", 4)
    code, text = run(*words)
    assert code != 0
    assert "patient001_frame01_scribble.nii.gz already exists" in text
    assert drawn.read_text() == "by hand"
    assert [path.name for path in drawn.parent.iterdir()] == [drawn.name]
    assert run(*words, "--overwrite")[0] == 0
    assert nib.load(drawn).shape


def test_scribbles_written_beside_masks_are_found(copy_of: Callable[[str], Path]) -> None:
    from maag.data.catalog import find_cases, preset

    root = copy_of("folders")
    shutil.rmtree(root / "scribbles")
    (root / "cases.csv").unlink()
    code, text = run(root / "masks", "--out", root / "scribbles", "--style", "skeleton")
    assert code == 0, text
    cases = find_cases(preset("folders", "fast").data, root)
    assert all(case.scribbles for case in cases if case.masks)


def test_contact_sheet_among_masks_is_no_mask(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.kron(np.eye(2), np.ones((8, 8))).astype(np.uint8)).save(tmp_path / "masks" / "case.png")
    words = (tmp_path / "masks", "--out", tmp_path / "masks" / "drawn", "--style", "skeleton")
    assert run(*words)[0] == 0
    assert (tmp_path / "masks" / "drawn-sheet.png").is_file()
    code, text = run(*words, "--overwrite")
    assert code == 0, text


def test_class_label_as_unlabelled_value_is_refused(phantom_dir: Path, tmp_path: Path) -> None:
    code, text = run(phantom_dir, "--out", tmp_path / "out", "--style", "curve", "--unlabelled", 3)
    assert code != 0
    assert "--unlabelled 3 is a label of the masks; it must be at least 4" in text


def test_settings_without_a_data_set_are_refused(phantom_dir: Path, tmp_path: Path) -> None:
    change = "data.unlabelled_value=200"
    code, text = run(phantom_dir, "--out", tmp_path / "out", "--style", "curve", "--set", change)
    assert code != 0
    assert f"--set {change}: it needs --dataset; for other masks give --classes and --unlabelled" in text


def test_scribble_offers_every_style() -> None:
    assert tuple(STYLES) == cli_data.STYLES  # a copy, because importing the styles is slow


def test_masks_with_the_same_name_are_refused(phantom_dir: Path, tmp_path: Path) -> None:
    code, text = run(phantom_dir, phantom_dir, "--out", tmp_path / "out", "--style", "curve")
    assert code != 0
    assert "would both get the scribble patient001_frame01_scribble" in text
