"""Images oriented differently from the training images: what is reported of them, and what reorienting them does."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from threshold_runner import DATA, ThresholdRunner, read_ledger

from deploy.predicting.batch import Outcome, predict
from deploy.predicting.executor import Threads
from deploy.predicting.job import Work
from maag.errors import ConfigError

TRAINED = ("LPS", "LAS")
SAME_IN_PLANE = ("LPS", "LPI")
"""Their slices have the same orientation."""
DIFFERENT = ("RPS", "RAI", "PLS", "ARI")
SLICED_DIFFERENTLY = ("LSP", "SAR")
PLAIN = Work()


class BrightUpperLeftIsForeground(ThresholdRunner):
    """Labels only the bright pixels in the upper left: a mirrored or rotated image has others there."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        found = super().__call__(images)
        height, width = images.shape[2:]
        found[:, 1, height // 2 :] = found[:, 1, :, width // 4 :] = 0
        found[:, 0] = 1 - found[:, 1]
        return 0.2 + 0.6 * found


def scan(code: str) -> nib.Nifti1Image:
    """The same image in any orientation: all corners of a cube are bright."""
    voxels = np.random.default_rng(0).normal(10, 1, (12, 12, 12)).astype(np.float32)
    for corner in np.ndindex(2, 2, 2):
        voxels[tuple(slice(7, 11) if high else slice(1, 5 - place) for place, high in enumerate(corner))] += 100
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]))  # LPS
    return image.as_reoriented(ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(code)))


def run(
    tmp_path: Path,
    code: str,
    out: str,
    *,
    work: Work = PLAIN,
    trained: tuple[str, ...] = TRAINED,
    resume: bool = False,
) -> tuple[Outcome, list[str]]:
    notes: list[str] = []
    tmp_path.joinpath(code).mkdir(exist_ok=True)
    nib.save(scan(code), tmp_path / code / "scan.nii.gz")
    executor = Threads(BrightUpperLeftIsForeground())
    inputs, folder = [tmp_path / code], tmp_path / out
    outcome = predict(
        inputs, executor, DATA, folder, "m1", work=work, notify=notes.append, orientations=trained, resume=resume
    )
    assert not outcome.failed
    return outcome, notes


def in_lps(path: Path) -> NDArray[np.float64]:
    image = nib.load(path)
    to_lps = ornt_transform(nib.io_orientation(image.affine), axcodes2ornt("LPS"))
    return np.asarray(image.as_reoriented(to_lps).dataobj)


def labels(tmp_path: Path, out: str) -> NDArray[np.float64]:
    found = in_lps(tmp_path / out / "scan.nii.gz")
    assert found.any()
    return found


@pytest.mark.parametrize("code", [*SAME_IN_PLANE, *DIFFERENT])
def test_a_reoriented_image_gets_the_labels_of_one_oriented_like_the_training_images(tmp_path: Path, code: str) -> None:
    work = Work(reorient=True, probabilities=True)
    run(tmp_path, "LPS", "plain", work=Work(probabilities=True))
    outcome, notes = run(tmp_path, code, "reoriented", work=work)
    assert (outcome.orientation_differs, notes) == (0, [])
    np.testing.assert_array_equal(labels(tmp_path, "reoriented"), labels(tmp_path, "plain"))
    name = "scan_probabilities.nii.gz"
    np.testing.assert_array_equal(in_lps(tmp_path / "reoriented" / name), in_lps(tmp_path / "plain" / name))
    source, written = (nib.load(tmp_path / folder / "scan.nii.gz") for folder in (code, "reoriented"))
    np.testing.assert_array_equal(source.affine, written.affine)


@pytest.mark.parametrize("code", SLICED_DIFFERENTLY)
def test_a_volume_stored_along_another_axis_is_sliced_like_the_training_images(tmp_path: Path, code: str) -> None:
    work = Work(reorient=True, probabilities=True)
    run(tmp_path, "LPS", "plain", work=Work(probabilities=True))
    run(tmp_path, code, "reoriented", work=work)
    np.testing.assert_array_equal(labels(tmp_path, "reoriented"), labels(tmp_path, "plain"))
    name = "scan_probabilities.nii.gz"
    np.testing.assert_array_equal(in_lps(tmp_path / "reoriented" / name), in_lps(tmp_path / "plain" / name))


@pytest.mark.parametrize("code", [*DIFFERENT, *SLICED_DIFFERENTLY])
def test_an_image_oriented_differently_is_segmented_as_stored_and_reported(tmp_path: Path, code: str) -> None:
    run(tmp_path, "LPS", "plain")
    outcome, (sentence,) = run(tmp_path, code, "stored")
    assert outcome.orientation_differs == outcome.to_dict()["orientation_differs"] == 1
    assert f"oriented differently ({code})" in sentence
    assert "(LPS or LAS)" in sentence
    assert "--reorient" in sentence
    assert (labels(tmp_path, "stored") != labels(tmp_path, "plain")).any()


@pytest.mark.parametrize("code", [*SAME_IN_PLANE, "LAS"])
def test_images_oriented_like_any_training_image_are_not_reported(tmp_path: Path, code: str) -> None:
    outcome, notes = run(tmp_path, code, "out")
    assert (outcome.orientation_differs, notes) == (0, [])
    assert [line["orientation"] for line in read_ledger(tmp_path / "out")] == [code]


def test_an_image_oriented_like_some_training_images_is_not_reoriented(tmp_path: Path) -> None:
    run(tmp_path, "LAS", "stored")
    run(tmp_path, "LAS", "asked", work=Work(reorient=True))
    np.testing.assert_array_equal(labels(tmp_path, "asked"), labels(tmp_path, "stored"))


def test_nothing_is_reported_where_the_training_images_orientation_is_unknown(tmp_path: Path) -> None:
    outcome, notes = run(tmp_path, "RAS", "out", trained=())
    assert (outcome.orientation_differs, notes) == (0, [])
    with pytest.raises(ConfigError, match="--reorient: the model does not record"):
        run(tmp_path, "RAS", "other", work=Work(reorient=True), trained=())
    assert not (tmp_path / "other").exists()


def test_resume_with_reorient_redoes_labels_made_without_it(tmp_path: Path) -> None:
    run(tmp_path, "RAS", "out")
    before = labels(tmp_path, "out")
    assert run(tmp_path, "RAS", "out", work=Work(reorient=True), resume=True)[0].done == 1
    assert (labels(tmp_path, "out") != before).any()
    assert run(tmp_path, "RAS", "out", work=Work(reorient=True), resume=True)[0].skipped == 1


def test_only_the_first_differently_oriented_image_is_reported_and_all_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        nib.save(scan("RAS"), tmp_path / f"{number}.nii.gz")
    notes: list[str] = []
    executor = Threads(BrightUpperLeftIsForeground())
    outcome = predict(
        [tmp_path], executor, DATA, tmp_path.with_name("out"), "m1", notify=notes.append, orientations=TRAINED
    )
    assert (outcome.done, outcome.orientation_differs, len(notes)) == (3, 3, 1)


def test_images_of_unknown_orientation_are_counted_and_not_reoriented(
    tmp_path: Path,
) -> None:
    nib.save(nib.Nifti1Image(np.asarray(scan("RAS").dataobj), None), tmp_path / "unknown.nii.gz")
    nib.save(scan("RAS"), tmp_path / "known.nii.gz")
    executor = Threads(BrightUpperLeftIsForeground())
    for work, unknown in ((Work(reorient=True), 1), (PLAIN, 0)):
        out = tmp_path.with_name(f"out-{unknown}")
        outcome = predict([tmp_path], executor, DATA, out, "m1", work=work, orientations=TRAINED)
        assert outcome.done == 2
        assert outcome.orientation_unknown == outcome.to_dict()["orientation_unknown"] == unknown
    stayed, plain = (nib.load(tmp_path.with_name(f"out-{number}") / "unknown.nii.gz") for number in (1, 0))
    np.testing.assert_array_equal(np.asarray(stayed.dataobj), np.asarray(plain.dataobj))
