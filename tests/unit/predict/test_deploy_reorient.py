"""Images that lie otherwise than those that trained: what is said of them, and what comes of laying them as those."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bright_runner import DATA, BrightIsForeground, ledger
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray

from deploy.predicting.batch import Outcome, predict
from deploy.predicting.crew import Threads
from deploy.predicting.job import Work
from maag.errors import ConfigError

TRAINED = ("LPS", "LAS")
AS_MOST = ("LPS", "LPI")
"""Slices lie the same way in either."""
OTHERWISE = ("RPS", "RAI", "PLS", "ARI")
CUT_OTHERWISE = ("LSP", "SAR")
PLAIN = Work()


class BrightAboveIsForeground(BrightIsForeground):
    """Of the bright pixels it takes some of the upper left alone: an image that is mirrored or turned has others."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        found = super().__call__(images)
        height, width = images.shape[2:]
        found[:, 1, height // 2 :] = found[:, 1, :, width // 4 :] = 0
        found[:, 0] = 1 - found[:, 1]
        return 0.2 + 0.6 * found


def scan(axes: str) -> nib.Nifti1Image:
    """The same image whatever its axes: all corners of a cube are bright."""
    voxels = np.random.default_rng(0).normal(10, 1, (12, 12, 12)).astype(np.float32)
    for corner in np.ndindex(2, 2, 2):
        voxels[tuple(slice(7, 11) if high else slice(1, 5 - place) for place, high in enumerate(corner))] += 100
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]))  # LPS
    return image.as_reoriented(ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes)))


def run(
    tmp_path: Path,
    axes: str,
    out: str,
    *,
    work: Work = PLAIN,
    trained: tuple[str, ...] = TRAINED,
    resume: bool = False,
) -> tuple[Outcome, list[str]]:
    told: list[str] = []
    tmp_path.joinpath(axes).mkdir(exist_ok=True)
    nib.save(scan(axes), tmp_path / axes / "scan.nii.gz")
    crew = Threads(BrightAboveIsForeground())
    inputs, folder = [tmp_path / axes], tmp_path / out
    outcome = predict(inputs, crew, DATA, folder, "m1", work=work, tell=told.append, axes=trained, resume=resume)
    assert not outcome.failed
    return outcome, told


def in_lps(path: Path) -> NDArray[np.float64]:
    image = nib.load(path)
    way = ornt_transform(nib.io_orientation(image.affine), axcodes2ornt("LPS"))
    return np.asarray(image.as_reoriented(way).dataobj)


def labels(tmp_path: Path, out: str) -> NDArray[np.float64]:
    found = in_lps(tmp_path / out / "scan.nii.gz")
    assert found.any()
    return found


@pytest.mark.parametrize("axes", [*AS_MOST, *OTHERWISE])
def test_a_reoriented_image_gets_the_labels_of_one_that_lies_as_those_that_trained(tmp_path: Path, axes: str) -> None:
    work = Work(reorient=True, probabilities=True)
    run(tmp_path, "LPS", "plain", work=Work(probabilities=True))
    outcome, told = run(tmp_path, axes, "laid", work=work)
    assert (outcome.lying_otherwise, told) == (0, [])
    np.testing.assert_array_equal(labels(tmp_path, "laid"), labels(tmp_path, "plain"))
    name = "scan_probabilities.nii.gz"
    np.testing.assert_array_equal(in_lps(tmp_path / "laid" / name), in_lps(tmp_path / "plain" / name))
    source, written = (nib.load(tmp_path / folder / "scan.nii.gz") for folder in (axes, "laid"))
    np.testing.assert_array_equal(source.affine, written.affine)


@pytest.mark.parametrize("axes", CUT_OTHERWISE)
def test_a_volume_that_is_stored_in_another_direction_is_cut_as_those_that_trained(tmp_path: Path, axes: str) -> None:
    work = Work(reorient=True, probabilities=True)
    run(tmp_path, "LPS", "plain", work=Work(probabilities=True))
    run(tmp_path, axes, "laid", work=work)
    np.testing.assert_array_equal(labels(tmp_path, "laid"), labels(tmp_path, "plain"))
    name = "scan_probabilities.nii.gz"
    np.testing.assert_array_equal(in_lps(tmp_path / "laid" / name), in_lps(tmp_path / "plain" / name))


@pytest.mark.parametrize("axes", [*OTHERWISE, *CUT_OTHERWISE])
def test_an_image_that_lies_otherwise_is_segmented_as_stored_and_told_of(tmp_path: Path, axes: str) -> None:
    run(tmp_path, "LPS", "plain")
    outcome, (sentence,) = run(tmp_path, axes, "stored")
    assert outcome.lying_otherwise == outcome.to_dict()["lying_otherwise"] == 1
    assert f"axes {axes}" in sentence
    assert "LPS or LAS" in sentence
    assert "--reorient" in sentence
    assert (labels(tmp_path, "stored") != labels(tmp_path, "plain")).any()


@pytest.mark.parametrize("axes", [*AS_MOST, "LAS"])
def test_nothing_is_said_of_images_that_lie_as_any_that_trained(tmp_path: Path, axes: str) -> None:
    outcome, told = run(tmp_path, axes, "out")
    assert (outcome.lying_otherwise, told) == (0, [])
    assert [line["axes"] for line in ledger(tmp_path / "out")] == [axes]


def test_an_image_that_lies_as_some_that_trained_stays_as_it_is(tmp_path: Path) -> None:
    run(tmp_path, "LAS", "stored")
    run(tmp_path, "LAS", "asked", work=Work(reorient=True))
    np.testing.assert_array_equal(labels(tmp_path, "asked"), labels(tmp_path, "stored"))


def test_nothing_is_said_where_the_model_does_not_know(tmp_path: Path) -> None:
    outcome, told = run(tmp_path, "RAS", "out", trained=())
    assert (outcome.lying_otherwise, told) == (0, [])
    with pytest.raises(ConfigError, match="--reorient: the model does not say"):
        run(tmp_path, "RAS", "other", work=Work(reorient=True), trained=())
    assert not (tmp_path / "other").exists()


def test_a_resumed_call_makes_labels_anew_that_it_is_to_lay_otherwise(tmp_path: Path) -> None:
    run(tmp_path, "RAS", "out")
    before = labels(tmp_path, "out")
    assert run(tmp_path, "RAS", "out", work=Work(reorient=True), resume=True)[0].done == 1
    assert (labels(tmp_path, "out") != before).any()
    assert run(tmp_path, "RAS", "out", work=Work(reorient=True), resume=True)[0].skipped == 1


def test_of_many_that_lie_otherwise_the_first_is_told_of_and_all_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        nib.save(scan("RAS"), tmp_path / f"{number}.nii.gz")
    told: list[str] = []
    crew = Threads(BrightAboveIsForeground())
    outcome = predict([tmp_path], crew, DATA, tmp_path.with_name("out"), "m1", tell=told.append, axes=TRAINED)
    assert (outcome.done, outcome.lying_otherwise, len(told)) == (3, 3, 1)


def test_images_that_do_not_tell_how_they_lie_stay_and_are_counted_where_others_are_laid(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.asarray(scan("RAS").dataobj), None), tmp_path / "untold.nii.gz")
    nib.save(scan("RAS"), tmp_path / "told.nii.gz")
    crew = Threads(BrightAboveIsForeground())
    for work, untold in ((Work(reorient=True), 1), (PLAIN, 0)):
        out = tmp_path.with_name(f"out-{untold}")
        outcome = predict([tmp_path], crew, DATA, out, "m1", work=work, axes=TRAINED)
        assert (outcome.done, outcome.axes_untold, outcome.to_dict()["axes_untold"]) == (2, untold, untold)
    stayed, plain = (nib.load(tmp_path.with_name(f"out-{number}") / "untold.nii.gz") for number in (1, 0))
    np.testing.assert_array_equal(np.asarray(stayed.dataobj), np.asarray(plain.dataobj))
