"""Which files are inputs, where their labels go, and which outputs are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from threshold_runner import DATA, ThresholdRunner, file_contents, run, write_volume

from deploy.predicting.batch import plan, predict
from deploy.predicting.executor import Threads
from maag.errors import ConfigError, MissingDataError


def test_masks_and_scribbles_beside_an_image_are_not_segmented(scans: Path, out: Path, runner: ThresholdRunner) -> None:
    for name in ("a_gt.nii.gz", "a_scribble.nii.gz", "lonely_gt.nii.gz"):
        write_volume(scans / name)
    assert run(scans, out, runner).done == 3
    assert {path.name for path in out.rglob("*.nii*")} == {"a.nii.gz", "b.nii", "lonely_gt.nii.gz"}


def test_an_empty_output_is_refused(scans: Path) -> None:
    with pytest.raises(ConfigError, match="the output is empty"):
        plan([scans], "")


@pytest.mark.parametrize("place", ["", "deep", "new/folder"])
def test_an_output_inside_the_input_is_refused(scans: Path, runner: ThresholdRunner, place: str) -> None:
    before = file_contents(scans)
    with pytest.raises(ConfigError, match="is inside the input"):
        run(scans, scans / place, runner)
    with pytest.raises(ConfigError, match="is inside the input"):
        predict([scans / "a.nii.gz"], Threads(runner), DATA, scans, "m1")
    assert file_contents(scans) == before


def test_targets_do_not_leave_the_output_through_links(
    scans: Path, out: Path, runner: ThresholdRunner, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "deep").symlink_to(elsewhere)
    outcome = run(scans, out, runner)
    assert outcome.done == 1
    assert "a link leads out of" in str(outcome.failed[0].error)
    assert not list(elsewhere.iterdir())


def test_dicom_seg_without_a_dicom_series_is_refused(scans: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match=r"--dicom-seg: no input is a DICOM series, the first is .*nii"):
        plan([scans], out, dicom_seg=True)


def test_two_sources_for_one_output_are_refused(tmp_path: Path, out: Path) -> None:
    first, second = write_volume(tmp_path / "one" / "a.nii.gz"), write_volume(tmp_path / "two" / "a.nii.gz")
    with pytest.raises(ConfigError, match="would both be written"):
        plan([first, second.parent], out)


def test_probabilities_that_collide_with_labels_are_refused(tmp_path: Path, out: Path) -> None:
    for name in ("a.nii.gz", "a_probabilities.nii.gz"):
        write_volume(tmp_path / "in" / name)
    assert len(plan([tmp_path / "in"], out)) == 2
    with pytest.raises(ConfigError, match=r"would both be written to .*/a_probabilities\.nii\.gz"):
        plan([tmp_path / "in"], out, probabilities=True)


def test_an_output_inside_what_a_pattern_or_list_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_volume(tmp_path / "work" / "one" / "sa_1.nii.gz")
    (tmp_path / "all.txt").write_text("work/one\n")
    monkeypatch.chdir(tmp_path)
    for given, out in (("work/**/sa_*.nii.gz", "work/labels"), ("all.txt", "work/one/labels"), ("work/o*", "work/out")):
        with pytest.raises(ConfigError, match="is inside the input"):
            plan([given], out)
    assert len(plan(["work/one/sa_*.nii.gz"], "work/labels")) == 1


@pytest.mark.parametrize(("name", "sentence"), [("nowhere", "no such file"), ("empty", "no NIfTI file")])
def test_missing_and_empty_inputs_are_refused(
    tmp_path: Path, out: Path, runner: ThresholdRunner, name: str, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=sentence):
        predict([tmp_path / name], Threads(runner), DATA, out, "m1")
    assert not out.exists()


def test_a_file_of_an_unsupported_type_is_refused(scans: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match="neither a NIfTI file nor a picture"):
        plan([scans / "notes.pdf"], out)
