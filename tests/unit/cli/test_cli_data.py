"""Missing, odd and synthetic data: what commands report, and the commands they suggest."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from command_line import run
from PIL import Image


def test_missing_data_error_suggests_the_phantom_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("train", "--dataset", "acdc", "--data", tmp_path / "none") == 2
    error = capsys.readouterr().err
    assert "expected patientNNN" in error
    assert f"`maag data phantom --dataset acdc --out {tmp_path / 'none'}`" in error
    (tmp_path / "empty").mkdir()
    assert run("data", "check", "--dataset", "acdc", "--data", tmp_path / "empty") == 2
    assert "no case of acdc in it" in capsys.readouterr().err


def test_check_of_only_invalid_cases_reports_no_spacing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for folder, value in (("images", 100), ("masks", 9)):
        (tmp_path / folder).mkdir()
        Image.new("L", (32, 32), value).save(tmp_path / folder / "a.png")
    assert run("data", "check", "--dataset", "folders", "--data", tmp_path) == 1
    error = capsys.readouterr().err
    assert "1 problem, " in error
    assert "Spacing" not in error
    assert "Shape" not in error


def test_suggested_commands_quote_paths_for_the_shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "Übung [1]"
    assert run("data", "phantom", "--dataset", "ppss", "--out", folder, "--cases", 4) == 0
    assert f"maag data check --dataset ppss --data '{folder}'" in capsys.readouterr().err
    assert run("train", "--dataset", "acdc", "--data", tmp_path / "not 1") == 2
    assert f"--out '{tmp_path / 'not 1'}'`" in capsys.readouterr().err


def test_suggested_phantom_command_uses_an_unused_folder_and_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    taken = tmp_path / "data"
    taken.mkdir()
    (taken / "notes.txt").write_text("of mine")
    for expected in (tmp_path / "ppss-phantom", tmp_path / "ppss-phantom-2"):
        assert run("data", "check", "--dataset", "ppss", "--data", taken) == 2
        words = shlex.split(capsys.readouterr().err.partition("`maag ")[2].partition("`")[0])
        assert words[-1] == str(expected)
        assert run(*words, "--cases", 4) == 0
        capsys.readouterr()


@pytest.mark.slow
def test_each_count_of_the_check_has_a_label(phantom_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", "--dataset", "acdc", "--data", phantom_dir) == 0
    printed = capsys.readouterr().err
    assert "masks with it" in printed  # scribbles without masks have none, but still strokes of each class
    assert "scribbled slices" in printed
