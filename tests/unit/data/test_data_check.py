"""Counts and notes of the data check, and that training reports the same notes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom_datasets import first_match, modify_voxels

from maag.cli.preparing import prepare_and_report, prepare_shapes_and_report
from maag.config.schema import Config
from maag.data.cache.preparing import prepare
from maag.data.catalog import preset, write_phantom
from maag.data.check import check


def test_the_check_reports_what_training_would_refuse(tmp_path: Path) -> None:
    write_phantom("folders", tmp_path / "hearts", 4, seed=0)
    data = replace(preset("folders", "fast", tmp_path / "hearts").data, unlabelled_value=4, channels=2)
    problems = check(tmp_path / "hearts", data).problems
    assert len(problems) == 4
    assert "heart_000.nii.gz: the image has 1 channels, data.channels is 2" in problems[0]


def test_an_unreadable_file_is_a_problem_of_its_case_alone(data_dir: Path, tiny_config: Config) -> None:
    first, *others = sorted(data_dir.rglob("patient*/"))
    for folder in others:
        shutil.rmtree(folder)
    broken_link = sorted(first.glob("*_frame??.nii.gz"))[0]
    broken_link.unlink()
    broken_link.symlink_to("nowhere.nii.gz")
    report = check(data_dir, tiny_config.data, ("own", "simulated:skeleton"))
    (problem,) = report.problems
    assert str(broken_link) in problem
    counted = ("patients", "cases", "usable cases", "cases with a scribble")
    assert [report.counts[each] for each in counted] == [1, 2, 1, 1]


def test_training_reports_notes_on_new_and_on_cached_data(
    data_dir: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    mirrored = sorted(data_dir.rglob("*_scribble.nii.gz"))[:5]
    for path in mirrored:
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([-1, 1, 1, 1]) @ image.affine), path)
    for _ in ("read", "taken from the cache"):
        prepare_and_report(data_dir, tiny_config.data, ["own"])
        stderr = capsys.readouterr().err
        assert stderr.count("its header has orientation") == 1
        assert f"Note: 5 cases, {mirrored[0]} and {mirrored[1]} among them: its header has orientation" in stderr


def test_training_reports_the_first_notes_and_the_check_all_of_them(
    data_dir: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    for voxel_mm, path in enumerate(sorted(data_dir.rglob("*_scribble.nii.gz"))[:5], start=2):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([voxel_mm, voxel_mm, 1, 1])), path)
    prepare_and_report(data_dir, tiny_config.data, ["own"])
    stderr = capsys.readouterr().err
    assert stderr.count("its header has voxels") == 3
    assert "Note: … and 2 more; `maag data check` with the same data and --set lists them" in stderr
    notes = check(data_dir, tiny_config.data, ["own"]).notes
    assert sum("its header has voxels" in note for note in notes) == 5


def test_differently_oriented_images_are_reported_by_the_check_and_before_training(
    data_dir: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    path = first_match(data_dir, "*_frame01.nii.gz")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([-8.0, 1.0, 1.0, 1.0])), path)
    notes = "\n".join(check(data_dir, tiny_config.data).notes)
    prepare_and_report(data_dir, tiny_config.data)
    for report in (notes, capsys.readouterr().err):
        assert "1 image has orientation LAS in the header, 11 have RAS; the first is patient" in report
        assert "1 image has the thickest voxels along x, 11 along z; the first is patient" in report


def test_shape_masks_oriented_differently_from_the_training_images_are_reported(
    data_dir: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    images = prepare_and_report(data_dir, tiny_config.data)
    for orientation, reported in (("RAS", False), ("LAS", True)):
        cases = tuple(replace(case, orientation=orientation) for case in images.cases)
        prepare_shapes_and_report("acdc", data_dir, tiny_config.data, replace(images, cases=cases))
        stderr = capsys.readouterr().err.replace("\n", " ")
        assert (
            f"Note: --shapes {data_dir}: 12 cases are oriented differently from the training images (LAS)" in stderr
        ) is reported


def test_a_scribble_without_unlabelled_voxels_is_noted(data_dir: Path, tiny_config: Config, tmp_path: Path) -> None:
    path = first_match(data_dir, "*_scribble.nii.gz")
    modify_voxels(path, lambda array: np.where(array == 4, 0, array))  # as ITK-SNAP saves it
    assert [note for note in check(data_dir, tiny_config.data).notes if "unlabelled" in note] == [
        f"patient001_frame01: {path}: no voxel is unlabelled (4), so all voxels supervise; if 0 means "
        "unlabelled in it, renumber it with `maag data renumber`"
    ]
    [note] = [note for case in prepare(data_dir, tiny_config.data, tmp_path / "cache").cases for note in case.notes]
    assert "no voxel is unlabelled" in note


def test_a_check_counts_cases_without_labels(data_dir: Path, tiny_config: Config) -> None:
    first_match(data_dir, "*_scribble.nii.gz").unlink()
    for mask in sorted(data_dir.rglob("*_gt.nii.gz"))[:2]:
        mask.unlink()
    assert check(data_dir, tiny_config.data).notes == (
        "1 case has no scribble; the first is patient001_frame01",
        "2 cases have no mask; the first is patient001_frame01",
    )


@pytest.mark.slow
def test_a_slice_annotated_by_two_raters_counts_once(phantom_dir: Path, tiny_config: Config) -> None:
    one, two = (
        check(phantom_dir, tiny_config.data, sources)
        for sources in (("simulated:skeleton",), ("simulated:skeleton", "simulated:skeleton-dilated"))
    )
    assert [item.slices_scribbled for item in two.classes] == [item.slices_scribbled for item in one.classes]
    assert all(0 < item.slices_scribbled <= two.counts["slices"] for item in two.classes)
