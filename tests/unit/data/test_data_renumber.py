"""Strokes as drawing programs number them, numbered as data sets are."""

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
SNAP = {0: 4, 5: 0}


def draw(path: Path, voxels: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return path


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A folder with one scribble: nobody drew on 0, and 5 is background."""
    voxels = np.zeros((6, 5, 2), np.int16)
    voxels[1:3, 1, 0], voxels[4, 2:4, 1], voxels[5, :, :] = 1, 3, 5
    return draw(tmp_path / "drawn" / "a_scribble.nii.gz", voxels).parent


def test_all_numbers_change_at_once_and_the_grid_stays(drawn: Path, tmp_path: Path) -> None:
    report = renumber(label_files([drawn]), tmp_path / "out", SNAP)
    before, after = nib.load(drawn / "a_scribble.nii.gz"), nib.load(tmp_path / "out" / "a_scribble.nii.gz")
    old, new = np.asarray(before.dataobj), np.asarray(after.dataobj)
    for value, expected in {0: 4, 1: 1, 3: 3, 5: 0}.items():
        assert (new[old == value] == expected).all()
    assert new.dtype == np.uint8
    np.testing.assert_array_equal(after.affine, before.affine)
    assert (report.files, report.problems) == (1, ())
    assert report.voxels == {0: 46, 1: 2, 3: 2, 5: 10}


def test_pictures_and_numbers_of_more_than_eight_bits(tmp_path: Path) -> None:
    voxels = np.array([[[0], [200], [500]], [[600], [0], [0]]], np.float64)
    source = draw(tmp_path / "heart.nii", voxels)
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
def test_what_would_be_lost_is_named_and_other_files_are_written(
    drawn: Path, tmp_path: Path, values: list[float], sentence: str
) -> None:
    bad = draw(drawn / "b_scribble.nii.gz", np.array(values, np.float32).reshape(3, 1, 1))
    report = renumber(label_files([drawn]), tmp_path / "out", SNAP)
    assert report.files == 1
    [problem] = report.problems
    assert problem.startswith(f"{bad}: ")
    with pytest.raises(DataError, match=sentence):
        raise DataError(problem)
    assert not (tmp_path / "out" / bad.name).exists()


def test_two_numbers_may_become_one_if_it_is_said(tmp_path: Path) -> None:
    source = draw(tmp_path / "a.nii", np.array([0, 4, 1], np.uint8).reshape(3, 1, 1))
    assert renumber([source], tmp_path / "out", {**SNAP, 4: 4}).problems == ()
    np.testing.assert_array_equal(np.ravel(nib.load(tmp_path / "out" / "a.nii").dataobj), [4, 4, 1])


def test_a_grey_picture_in_colours_is_one_of_labels(tmp_path: Path) -> None:
    grey = np.array([[0, 7], [7, 0]], np.uint8)
    for name, array in (("a.png", np.stack([grey] * 3, axis=2)), ("b.png", np.stack([grey, grey, grey + 1], axis=2))):
        Image.fromarray(array).save(tmp_path / name)
    report = renumber([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", {7: 1})
    np.testing.assert_array_equal(Image.open(tmp_path / "out" / "a.png"), grey // 7)
    np.testing.assert_array_equal(load_label_file(tmp_path / "a.png", {0, 7})[0], grey)
    [problem] = report.problems
    assert problem.startswith(f"{tmp_path / 'b.png'}: a colour image")


def test_nothing_drawn_is_replaced(drawn: Path, tmp_path: Path) -> None:
    sources = label_files([drawn])
    with pytest.raises(ConfigError, match="would replace itself"):
        renumber(sources, drawn, SNAP, overwrite=True)
    renumber(sources, tmp_path / "out", SNAP)
    with pytest.raises(StorageError, match="already exists"):
        renumber(sources, tmp_path / "out", SNAP)
    assert renumber(sources, tmp_path / "out", SNAP, overwrite=True).files == 1
    with pytest.raises(ConfigError, match="would both be written"):
        renumber([*sources, draw(tmp_path / "a_scribble.nii.gz", np.zeros((2, 2, 1), np.uint8))], tmp_path / "o", SNAP)
    with pytest.raises(MissingDataError, match="no such label file or folder"):
        label_files([tmp_path / "nowhere"])


def words_of(text: str) -> list[str]:
    """Those of the only `maag data renumber` in it, without folders."""
    [line] = [line for line in text.splitlines() if line.strip().startswith("maag data renumber")]
    return shlex.split(line[line.index("--number") :])


def test_what_is_drawn_as_the_readme_says_becomes_scribbles_as_it_says(drawn: Path, tmp_path: Path) -> None:
    voxels = np.array([0, 1, 2, 3, 4, 5], np.uint8).reshape(6, 1, 1)
    draw(drawn / "painted_unlabelled.nii.gz", voxels)
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    shown = CliRunner().invoke(commands, ["data", "renumber", "--help"]).output
    assert words_of(readme) == words_of(shown)
    out = tmp_path / "out"
    done = CliRunner().invoke(commands, ["data", "renumber", str(drawn), "--out", str(out), *words_of(readme)])
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(np.ravel(nib.load(out / "painted_unlabelled.nii.gz").dataobj), [4, 1, 2, 3, 4, 0])
    (drawn / "painted_unlabelled.nii.gz").unlink()
    done = CliRunner().invoke(
        commands, ["data", "renumber", str(drawn), "--out", str(out), "--overwrite", *words_of(readme)]
    )
    assert "Note" not in done.output  # that nobody painted 4


def test_after_bad_files_are_corrected_the_command_goes_as_it_says(drawn: Path) -> None:
    bad = draw(drawn / "b_scribble.nii.gz", np.array([0, 300, 1], np.int16).reshape(3, 1, 1))
    # Inside the folder of the drawings, where a second call would find its own files.
    words = ["data", "renumber", str(drawn), "--out", str(drawn / "out"), "--number", "0=4", "--number", "5=0"]
    failed = CliRunner().invoke(commands, words)
    assert isinstance(failed.exception, SomeCasesFailed)
    assert "1 of 2 files were not renumbered; correct them, and run again with --overwrite" in str(failed.exception)
    draw(bad, np.array([0, 3, 1], np.int16).reshape(3, 1, 1))
    done = CliRunner().invoke(commands, [*words, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert "2 files in" in done.output
    assert label_files([drawn], drawn) == label_files([drawn], drawn.parent) == label_files([drawn])
    assert len(label_files([drawn])) == 4


def test_the_command_says_what_became_of_what(drawn: Path, tmp_path: Path) -> None:
    words = ["data", "renumber", str(drawn), "--out", str(tmp_path / "out")]
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


def test_a_volume_is_renumbered_in_little_more_memory_than_it_has(tmp_path: Path) -> None:
    labels = np.zeros((128, 128, 64), np.uint8)
    labels[:, 5] = 5
    files = [draw(tmp_path / "drawn" / "a.nii.gz", labels)]
    renumber(files, tmp_path / "before", {})  # what is loaded once is not part of it
    tracemalloc.start()
    report = renumber(files, tmp_path / "out", {0: 4, 5: 0})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.voxels == {0: int((labels == 0).sum()), 5: int((labels == 5).sum())}
    assert peak < 8 * labels.nbytes
