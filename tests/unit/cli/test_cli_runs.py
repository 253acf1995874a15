"""Which run or search is the default when none is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maag.cli.main import main
from maag.cli.runs import newest_trained
from maag.errors import MissingDataError


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_best(run: str, age: int) -> None:
    """A best model last modified `age` seconds before a fixed time."""
    path = Path("runs", run, "checkpoints", "best.safetensors")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    os.utime(path, (1_000_000 - age, 1_000_000 - age))


def write_plan(search: str) -> None:
    path = Path("runs", search, "search.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_newest_run_is_found_at_any_depth() -> None:
    write_best("old", 3)
    write_best("acdc", 2)
    write_best("acdc/seed1", 1)
    assert newest_trained() == (Path("runs/acdc/seed1"), "run")
    write_best("new", 0)
    assert newest_trained() == (Path("runs/new"), "run")


def test_symlinked_run_is_found(tmp_path: Path) -> None:
    write_best("old", 1)
    write_best("far", 0)
    Path("runs/far").rename(tmp_path / "far")
    Path("runs/far").symlink_to(tmp_path / "far")
    assert newest_trained() == (Path("runs/far"), "run")


def test_run_with_a_broken_model_link_is_skipped(tmp_path: Path) -> None:
    write_best("old", 1)
    write_best("moved", 0)
    best = Path("runs/moved/checkpoints/best.safetensors")
    best.unlink()
    best.symlink_to(tmp_path / "gone")
    assert newest_trained() == (Path("runs/old"), "run")


def test_demo_runs_are_skipped() -> None:
    write_best("demo-20300101-120000/run", 0)
    with pytest.raises(MissingDataError):
        newest_trained()
    write_best("acdc", 1)
    assert newest_trained() == (Path("runs/acdc"), "run")


def test_search_is_chosen_instead_of_its_trials() -> None:
    write_best("old", 3)
    write_plan("acdc/tune")
    write_best("acdc/tune/trials/a1", 0)
    assert newest_trained() == (Path("runs/old"), "run")  # the search has no best model yet
    write_best("acdc/tune", 1)
    assert newest_trained() == (Path("runs/acdc/tune"), "search")


def test_error_mentions_a_search_without_a_best_model() -> None:
    with pytest.raises(MissingDataError, match=r"train one with `maag train`$"):
        newest_trained()
    write_plan("tune")
    write_best("tune/trials/a1", 0)
    with pytest.raises(MissingDataError, match=r"; runs/tune is a search without a best model yet"):
        newest_trained()


def test_export_reports_the_default_run(capsys: pytest.CaptureFixture[str]) -> None:
    write_best("acdc/seed1", 0)
    with pytest.raises(SystemExit):
        main(["export"])
    assert "Exporting runs/acdc/seed1, the run below runs with the newest best model" in capsys.readouterr().err
