"""Which run or search is meant where nobody names one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maag.cli.main import main
from maag.cli.runs import newest_trained
from maag.errors import MissingDataError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_best(run: str, age: int) -> None:
    """A best model that was written `age` seconds before the newest one may be."""
    path = Path("runs", run, "checkpoints", "best.safetensors")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    os.utime(path, (1_000_000 - age, 1_000_000 - age))


def write_plan(search: str) -> None:
    path = Path("runs", search, "search.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_the_newest_may_lie_anywhere_below() -> None:
    write_best("old", 3)
    write_best("acdc", 2)
    write_best("acdc/seed1", 1)
    assert newest_trained() == (Path("runs/acdc/seed1"), "run")
    write_best("new", 0)
    assert newest_trained() == (Path("runs/new"), "run")


def test_a_run_on_another_disk_is_one_too(tmp_path: Path) -> None:
    write_best("old", 1)
    write_best("far", 0)
    Path("runs/far").rename(tmp_path / "far")
    Path("runs/far").symlink_to(tmp_path / "far")
    assert newest_trained() == (Path("runs/far"), "run")


def test_a_link_to_a_model_that_is_gone_is_no_run(tmp_path: Path) -> None:
    write_best("old", 1)
    write_best("moved", 0)
    best = Path("runs/moved/checkpoints/best.safetensors")
    best.unlink()
    best.symlink_to(tmp_path / "gone")
    assert newest_trained() == (Path("runs/old"), "run")


def test_what_a_demo_trained_on_synthetic_patients_is_not_meant() -> None:
    write_best("demo-20300101-120000/run", 0)
    with pytest.raises(MissingDataError):
        newest_trained()
    write_best("acdc", 1)
    assert newest_trained() == (Path("runs/acdc"), "run")


def test_a_search_is_meant_and_not_its_trials() -> None:
    write_best("old", 3)
    write_plan("acdc/tune")
    write_best("acdc/tune/trials/a1", 0)
    assert newest_trained() == (Path("runs/old"), "run")  # for the search has no best model yet
    write_best("acdc/tune", 1)
    assert newest_trained() == (Path("runs/acdc/tune"), "search")


def test_trials_of_a_search_that_has_not_ended_are_told_of() -> None:
    with pytest.raises(MissingDataError, match=r"train one with `maag train`$"):
        newest_trained()
    write_plan("tune")
    write_best("tune/trials/a1", 0)
    with pytest.raises(MissingDataError, match=r"; runs/tune is a search without a best model yet"):
        newest_trained()


def test_an_export_says_which_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    write_best("acdc/seed1", 0)
    with pytest.raises(SystemExit):
        main(["export"])
    assert "Exporting runs/acdc/seed1, the run below runs with the newest best model" in capsys.readouterr().err
