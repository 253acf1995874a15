"""Ray's state of a search, restored from what was staged before a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maag.errors import StorageError
from tune.staged_state import make_whole

STATE = "experiment_state-2026-01-02_03-04-05.json"
SEARCHER = "searcher-state-2026-01-02_03-04-05.pkl"


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "search" / "ray"
    (folder / "9fcc343f").mkdir(parents=True)
    return folder


def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: str, trial: str, state: str) -> Path:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "tmp"))
    folder = tmp_path / "tmp" / "ray" / f"session_{session}" / "artifacts" / "2026" / "ray" / "driver_artifacts"
    (folder / trial).mkdir(parents=True)
    (folder / STATE).write_text(state)
    (folder / SEARCHER).write_text(f"searcher of {session}")
    return folder


@pytest.mark.parametrize("there", ["", '{"trial_data": [1, ', '{"trial_data": [1]}'])
def test_what_was_staged_is_what_counts(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    (experiment / "experiment_state-2025-12-31_23-59-59.json").write_text('{"trial_data": []}')
    (experiment / STATE).write_text(there)
    (experiment / SEARCHER).write_text("cut o")
    stage(tmp_path, monkeypatch, "20260102", "9fcc343f", '{"trial_data": [1, 2]}')
    make_whole(experiment)
    assert (experiment / STATE).read_text() == '{"trial_data": [1, 2]}'
    assert (experiment / SEARCHER).read_text() == "searcher of 20260102"


def test_of_several_sessions_the_last_one_counts(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment / STATE).write_text("")
    for place, session in enumerate(("20260103", "20260101", "20260102")):
        folder = stage(tmp_path, monkeypatch, session, "9fcc343f", f'{{"trial_data": [{place}]}}')
        os.utime(folder / STATE, (1000 + place % 2, 1000 + place % 2))  # the clock was wrong when one was named
    make_whole(experiment)
    assert (experiment / STATE).read_text() == '{"trial_data": [1]}'


def test_of_a_kill_while_staging_nothing_is_taken(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment / STATE).write_text('{"trial_data": [1]}')
    stage(tmp_path, monkeypatch, "20260102", "9fcc343f", '{"trial_data": [1, 2')
    make_whole(experiment)
    assert (experiment / STATE).read_text() == '{"trial_data": [1]}'
    assert not (experiment / SEARCHER).exists()


def test_another_search_of_the_same_name_and_second_is_told_by_its_trials(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment / STATE).write_text("")
    stage(tmp_path, monkeypatch, "20260102", "e111f8c1", '{"trial_data": [9]}')
    with pytest.raises(StorageError, match=r"Ray's state of this search was cut off by a kill.*another --out"):
        make_whole(experiment)
    assert (experiment / STATE).read_text() == ""


def test_a_search_killed_before_any_state_is_left_alone(experiment: Path) -> None:
    make_whole(experiment)
    assert [path.name for path in experiment.iterdir()] == ["9fcc343f"]
