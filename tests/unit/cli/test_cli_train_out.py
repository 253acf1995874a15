"""A run's folder: existing files are kept, and a refused run creates none."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

from maag.data.cache.prepared import PreparedData


def test_setting_unsupported_by_the_device_is_refused_before_the_run_starts(
    phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "none")
    words = ("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "run", "--preset", "fast")
    assert run(*words, "--device", "cpu", "--set", "train.compile=true") == 2
    assert "train.compile=true: on a CPU it needs a C++ compiler" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_existing_run_is_not_overwritten(
    phantom_dir: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert run("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path, *tiny_options) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "checkpoints/best.safetensors", "split.json"])
def test_folder_with_other_files_is_not_overwritten(
    name: str,
    phantom_dir: Path,
    prepared: PreparedData,
    tiny_options: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(prepared.directory.parent))
    existing = tmp_path / "there" / name
    existing.parent.mkdir(parents=True)
    existing.write_text("{}")
    for command in ("train", "tune"):
        assert run(command, "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "there", *tiny_options) == 2
        assert f"holds {name}, which" in capsys.readouterr().err
    assert [path for path in (tmp_path / "there").rglob("*") if path.is_file()] == [existing]
    assert existing.read_text() == "{}"


def test_search_in_a_run_folder_is_refused_without_suggesting_resume(
    phantom_dir: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert run("tune", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path, *tiny_options) == 2
    assert "holds a run, whose files a search would overwrite; choose another --out" in capsys.readouterr().err


def test_existing_run_is_refused_before_data_are_prepared(
    phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    words = ("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path, "--preset", "fast")
    assert run(*words, "--scribbles", "nope") == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize("refused", [("--scribbles", "nope"), ("--scribbles", "simulated:foo"), ("--teacher", "nope")])
def test_refused_training_leaves_no_folder(
    refused: tuple[str, str],
    phantom_dir: Path,
    prepared: PreparedData,
    tiny_options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAAG_CACHE", str(prepared.directory.parent))
    assert run("train", "--dataset", "acdc", "--data", phantom_dir, *tiny_options, *refused) == 2
    assert not (tmp_path / "runs").exists()


def test_resume_without_a_run_is_refused(phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "none", "--resume")
    assert run(*words) == 2
    assert "no run here to resume" in capsys.readouterr().err
    assert run(*words, "--set", "optim.lr=1") == 2


def test_unwritable_output_is_reported_in_one_sentence(
    phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    assert run("train", "--dataset", "acdc", "--data", phantom_dir, "--preset", "fast", "--out", out) == 1
    error = capsys.readouterr().err
    assert f"Error: cannot write {out}: a part of this path is a file" in error
    assert "Traceback" not in error
