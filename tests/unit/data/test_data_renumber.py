"""Renumbering of label files from drawing programs."""

from __future__ import annotations

import shlex
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from maag.cli.main import commands
from maag.data.files.label_files import load_label_file
from maag.data.renumber import label_files, renumber
from maag.errors import ConfigError, DataError, MissingDataError, SomeCasesFailed, StorageError

AFFINE = np.array([[-1.3, 0.1, 0, 90], [0, 1.4, 0, -80], [0, 0, 9.0, 3], [0, 0, 0, 1]])
ITK_SNAP = {0: 4, 5: 0}


def save_nifti(path: Path, voxels: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return path


@pytest.fixture
def scribble_dir(tmp_path: Path) -> Path:
    """A folder with one scribble, in which 0 is unlabelled and 5 is background."""
    voxels = np.zeros((6, 5, 2), np.int16)
    voxels[1:3, 1, 0], voxels[4, 2:4, 1], voxels[5, :, :] = 1, 3, 5
    return save_nifti(tmp_path / "drawn" / "a_scribble.nii.gz", voxels).parent


def test_renumbering_changes_all_numbers_at_once_and_keeps_the_grid(scribble_dir: Path, tmp_path: Path) -> None:
    report = renumber(label_files([scribble_dir]), tmp_path / "out", ITK_SNAP)
    before, after = nib.load(scribble_dir / "a_scribble.nii.gz"), nib.load(tmp_path / "out" / "a_scribble.nii.gz")
    old, new = np.asarray(before.dataobj), np.asarray(after.dataobj)
    for value, expected in {0: 4, 1: 1, 3: 3, 5: 0}.items():
        assert (new[old == value] == expected).all()
    assert new.dtype == np.uint8
    np.testing.assert_array_equal(after.affine, before.affine)
    assert (report.files, report.problems) == (1, ())
    assert report.voxels == {0: 46, 1: 2, 3: 2, 5: 10}


def test_pictures_and_numbers_above_255_are_renumbered(tmp_path: Path) -> None:
    voxels = np.array([[[0], [200], [500]], [[600], [0], [0]]], np.float64)
    source = save_nifti(tmp_path / "heart.nii", voxels)
    Image.fromarray(np.array([[0, 7], [7, 0]], np.uint8)).save(tmp_path / "leaf.tif")
    numbers = {200: 2, 500: 1, 600: 3, 7: 1}
    report = renumber([source, tmp_path / "leaf.tif"], tmp_path / "out", numbers)
    assert report.problems == ()
    np.testing.assert_array_equal(nib.load(tmp_path / "out" / "heart.nii").dataobj, [[[0], [2], [1]], [[3], [0], [0]]])
    np.testing.assert_array_equal(Image.open(tmp_path / "out" / "leaf.png"), [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([0, 4, 1], r"has the number 4 already, which 0 would become; renumber it with --number 4=N"),
        ([0, 300, 1], r"has the number 300, but labels must be 0 to 255; renumber it with --number 300=N"),
        ([0, 0.5, 1], r"has the value 0\.5, but labels are whole numbers"),
        ([0, np.nan, 1], r"has the value nan, but labels are whole numbers"),
    ],
)
def test_a_lossy_renumbering_is_reported_and_other_files_are_written(
    scribble_dir: Path, tmp_path: Path, values: list[float], sentence: str
) -> None:
    bad = save_nifti(scribble_dir / "b_scribble.nii.gz", np.array(values, np.float32).reshape(3, 1, 1))
    report = renumber(label_files([scribble_dir]), tmp_path / "out", ITK_SNAP)
    assert report.files == 1
    [problem] = report.problems
    assert problem.startswith(f"{bad}: ")
    with pytest.raises(DataError, match=sentence):
        raise DataError(problem)
    assert not (tmp_path / "out" / bad.name).exists()


def test_two_numbers_are_merged_if_both_are_given(tmp_path: Path) -> None:
    source = save_nifti(tmp_path / "a.nii", np.array([0, 4, 1], np.uint8).reshape(3, 1, 1))
    assert renumber([source], tmp_path / "out", {**ITK_SNAP, 4: 4}).problems == ()
    np.testing.assert_array_equal(np.ravel(nib.load(tmp_path / "out" / "a.nii").dataobj), [4, 4, 1])


def test_a_grey_picture_stored_as_rgb_is_accepted_as_labels(tmp_path: Path) -> None:
    grey = np.array([[0, 7], [7, 0]], np.uint8)
    for name, array in (("a.png", np.stack([grey] * 3, axis=2)), ("b.png", np.stack([grey, grey, grey + 1], axis=2))):
        Image.fromarray(array).save(tmp_path / name)
    report = renumber([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", {7: 1})
    np.testing.assert_array_equal(Image.open(tmp_path / "out" / "a.png"), grey // 7)
    np.testing.assert_array_equal(load_label_file(tmp_path / "a.png", {0, 7})[0], grey)
    [problem] = report.problems
    assert problem.startswith(f"{tmp_path / 'b.png'}: a colour image")


def test_renumbering_refuses_to_replace_sources_and_existing_files(scribble_dir: Path, tmp_path: Path) -> None:
    sources = label_files([scribble_dir])
    with pytest.raises(ConfigError, match="would replace itself"):
        renumber(sources, scribble_dir, ITK_SNAP, overwrite=True)
    renumber(sources, tmp_path / "out", ITK_SNAP)
    with pytest.raises(StorageError, match="already exists"):
        renumber(sources, tmp_path / "out", ITK_SNAP)
    assert renumber(sources, tmp_path / "out", ITK_SNAP, overwrite=True).files == 1
    with pytest.raises(ConfigError, match="would both be written"):
        renumber(
            [*sources, save_nifti(tmp_path / "a_scribble.nii.gz", np.zeros((2, 2, 1), np.uint8))],
            tmp_path / "o",
            ITK_SNAP,
        )
    with pytest.raises(MissingDataError, match="no such label file or folder"):
        label_files([tmp_path / "nowhere"])


def renumber_options(text: str) -> list[str]:
    """Options of the only `maag data renumber` command in `text`, without folders."""
    [line] = [line for line in text.splitlines() if line.strip().startswith("maag data renumber")]
    return shlex.split(line[line.index("--number") :])


def test_the_readme_command_turns_painted_labels_into_scribbles(scribble_dir: Path, tmp_path: Path) -> None:
    voxels = np.array([0, 1, 2, 3, 4, 5], np.uint8).reshape(6, 1, 1)
    save_nifti(scribble_dir / "painted_unlabelled.nii.gz", voxels)
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    help_text = CliRunner().invoke(commands, ["data", "renumber", "--help"]).output
    assert renumber_options(readme) == renumber_options(help_text)
    out = tmp_path / "out"
    done = CliRunner().invoke(
        commands, ["data", "renumber", str(scribble_dir), "--out", str(out), *renumber_options(readme)]
    )
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(np.ravel(nib.load(out / "painted_unlabelled.nii.gz").dataobj), [4, 1, 2, 3, 4, 0])
    (scribble_dir / "painted_unlabelled.nii.gz").unlink()
    done = CliRunner().invoke(
        commands, ["data", "renumber", str(scribble_dir), "--out", str(out), "--overwrite", *renumber_options(readme)]
    )
    assert "Note" not in done.output  # that no voxel has number 4


def test_the_suggested_command_works_after_bad_files_are_corrected(scribble_dir: Path) -> None:
    bad = save_nifti(scribble_dir / "b_scribble.nii.gz", np.array([0, 300, 1], np.int16).reshape(3, 1, 1))
    # Inside the source folder, where a second call would find its own output.
    words = [
        "data",
        "renumber",
        str(scribble_dir),
        "--out",
        str(scribble_dir / "out"),
        "--number",
        "0=4",
        "--number",
        "5=0",
    ]
    failed = CliRunner().invoke(commands, words)
    assert isinstance(failed.exception, SomeCasesFailed)
    assert "1 of 2 files were not renumbered; correct them, and run again with --overwrite" in str(failed.exception)
    save_nifti(bad, np.array([0, 3, 1], np.int16).reshape(3, 1, 1))
    done = CliRunner().invoke(commands, [*words, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert "2 files in" in done.output
    assert (
        label_files([scribble_dir], scribble_dir)
        == label_files([scribble_dir], scribble_dir.parent)
        == label_files([scribble_dir])
    )
    assert len(label_files([scribble_dir])) == 4


def test_the_command_reports_files_unused_numbers_and_invalid_options(scribble_dir: Path, tmp_path: Path) -> None:
    words = ["data", "renumber", str(scribble_dir), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(commands, [*words, "--number", "0=4", "--number", "5=0", "--number", "7=1"])
    assert done.exit_code == 0, done.output
    assert "1 file in" in done.output
    assert "Note: no voxel has number 7." in done.output
    for wrong, sentence in (
        (["0:4"], "--number 0:4: give the old and the new number, such as 0=4"),
        (["0=4", "0=5"], "0 cannot become both 4 and 5"),
        (["0=256"], "--number 0=256: new numbers must be 0 to 255"),
    ):
        numbers = [word for change in wrong for word in ("--number", change)]
        refused = CliRunner().invoke(commands, [*words, *numbers])
        assert isinstance(refused.exception, ConfigError)
        assert sentence in str(refused.exception)


def test_renumbering_a_volume_takes_bounded_memory(tmp_path: Path) -> None:
    labels = np.zeros((128, 128, 64), np.uint8)
    labels[:, 5] = 5
    files = [save_nifti(tmp_path / "drawn" / "a.nii.gz", labels)]
    renumber(files, tmp_path / "before", {})  # so that one-time loading is not counted
    tracemalloc.start()
    report = renumber(files, tmp_path / "out", {0: 4, 5: 0})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.voxels == {0: int((labels == 0).sum()), 5: int((labels == 5).sum())}
    assert peak < 8 * labels.nbytes
