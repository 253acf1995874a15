"""Supported locations of ACDC's cases and scribbles, and duplicates among them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from phantom_datasets import first_match, modify_voxels

from maag.config.data import DataConfig
from maag.data.catalog import find_cases
from maag.data.check import check
from maag.errors import DataError, MissingDataError

ACDC = DataConfig()


@pytest.mark.parametrize("root", ["training", "ACDC/database/training", "."])
@pytest.mark.parametrize("scribble_folder", [None, "acdc_scribbles", "elsewhere"])
def test_cases_and_scribbles_are_found_in_every_supported_layout(
    phantom_dir: Path, tmp_path: Path, root: str, scribble_folder: str | None
) -> None:
    top = tmp_path / "data"
    for source in (phantom_dir / "training").rglob("*.nii.gz"):
        folder = top / root if root == "." else top / root / source.parent.name
        if scribble_folder and source.name.endswith("_scribble.nii.gz"):
            folder = (top if scribble_folder == "acdc_scribbles" else tmp_path) / scribble_folder
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / source.name)
    junk = top / "__MACOSX"
    junk.mkdir()
    (junk / "patient001_frame01.nii.gz").write_text("")
    (top / "._patient001_frame01.nii.gz").write_text("")
    (top / "MANDATORY_CITATION.md").write_text("")
    cases = find_cases(ACDC, top, [str(tmp_path / "elsewhere")] if scribble_folder == "elsewhere" else [])
    assert len(cases) == 12
    assert all(case.masks and case.scribbles for case in cases)
    assert [case.case_id for case in cases] == sorted(case.case_id for case in cases)


@pytest.mark.slow
def test_simulated_scribbles_near_the_data_never_replace_the_experts_scribbles(data_dir: Path) -> None:
    expert_scribbles = [case.scribbles for case in find_cases(ACDC, data_dir)]
    scribble_files = [path for path in data_dir.rglob("*_scribble.nii.gz")]
    for folder in (data_dir.parent / "scribbles", data_dir / "scribbles"):
        folder.mkdir()
        for path in scribble_files:
            shutil.copy(path, folder)
        if folder.parent == data_dir.parent:
            assert [case.scribbles for case in find_cases(ACDC, data_dir)] == expert_scribbles
    assert [case.scribbles for case in find_cases(ACDC, data_dir)] == expert_scribbles  # despite equal copies
    assert not check(data_dir, ACDC).problems
    for path in (data_dir / "scribbles").iterdir():
        modify_voxels(path, lambda array: np.where(array == 4, 0, array))
    problems = check(data_dir, ACDC).problems
    assert len(problems) == len(expert_scribbles)
    assert "has two scribbles, " in str(problems[0])
    assert "--scribbles" in str(problems[0])
    with_another_rater = check(data_dir, ACDC, ["own", "simulated:curve", str(data_dir / "scribbles")]).problems
    assert with_another_rater == problems
    other = [str(data_dir / "scribbles")]
    assert all(len(case.scribbles) == 1 for case in find_cases(ACDC, data_dir, other))
    assert not check(data_dir, ACDC, other).problems


def test_published_scribbles_next_to_the_data_are_found_from_a_relative_path(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_dir.parent / "acdc_scribbles").mkdir()
    for path in list(data_dir.rglob("*_scribble.nii.gz")):
        path.rename(data_dir.parent / "acdc_scribbles" / path.name)
    monkeypatch.chdir(data_dir)
    assert all(case.scribbles for case in find_cases(ACDC, Path()))


def test_symlinked_patient_and_scribble_folders_are_searched(data_dir: Path, tmp_path: Path) -> None:
    before = find_cases(ACDC, data_dir)
    (data_dir / "training").rename(tmp_path / "elsewhere")
    (data_dir / "training").symlink_to(tmp_path / "elsewhere")
    assert find_cases(ACDC, data_dir) == before
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "one").symlink_to(tmp_path / "strokes")
    (tmp_path / "strokes").mkdir()
    for path in (tmp_path / "elsewhere").rglob("*_scribble.nii.gz"):
        path.rename(tmp_path / "strokes" / path.name)
    assert all(case.scribbles for case in find_cases(ACDC, data_dir, [str(tmp_path / "drawn")]))


def test_a_duplicate_case_is_refused(data_dir: Path) -> None:
    shutil.copytree(data_dir / "training", data_dir / "testing")
    with pytest.raises(DataError, match=r"there twice, as .*testing.* and .*training.*; keep one of them"):
        find_cases(ACDC, data_dir)


def test_an_empty_folder_is_refused_with_the_expected_layout(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no case of acdc in it; expected patientNNN"):
        find_cases(ACDC, tmp_path)


@pytest.mark.parametrize("ending", ["gt", "scribble"])
def test_a_broken_link_to_labels_is_a_problem_of_its_case(data_dir: Path, ending: str) -> None:
    path = first_match(data_dir, f"*_{ending}.nii.gz")
    path.unlink()
    path.symlink_to("nowhere")
    report = check(data_dir, ACDC)
    assert report.problems == (f"cannot read {path}: a broken link to nowhere; fetch its target, or remove the link",)
    assert report.counts["usable cases"] == report.counts["cases"] - 1
