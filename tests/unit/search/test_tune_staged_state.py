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


@pytest.mark.parametrize("saved", ["", '{"trial_data": [1, ', '{"trial_data": [1]}'])
def test_staged_state_replaces_the_saved_state(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: str
) -> None:
    (experiment / "experiment_state-2025-12-31_23-59-59.json").write_text('{"trial_data": []}')
    (experiment / STATE).write_text(saved)
    (experiment / SEARCHER).write_text("cut o")
    stage(tmp_path, monkeypatch, "20260102", "9fcc343f", '{"trial_data": [1, 2]}')
    make_whole(experiment)
    assert (experiment / STATE).read_text() == '{"trial_data": [1, 2]}'
    assert (experiment / SEARCHER).read_text() == "searcher of 20260102"


def test_newest_of_several_sessions_is_used(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (experiment / STATE).write_text("")
    for place, session in enumerate(("20260103", "20260101", "20260102")):
        folder = stage(tmp_path, monkeypatch, session, "9fcc343f", f'{{"trial_data": [{place}]}}')
        os.utime(folder / STATE, (1000 + place % 2, 1000 + place % 2))  # the clock was wrong when one was named
    make_whole(experiment)
    assert (experiment / STATE).read_text() == '{"trial_data": [1]}'


def test_incomplete_staged_state_is_ignored(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (experiment / STATE).write_text('{"trial_data": [1]}')
    stage(tmp_path, monkeypatch, "20260102", "9fcc343f", '{"trial_data": [1, 2')
    make_whole(experiment)
    assert (experiment / STATE).read_text() == '{"trial_data": [1]}'
    assert not (experiment / SEARCHER).exists()


def test_staged_state_of_another_search_is_recognised_by_its_trials(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (experiment / STATE).write_text("")
    stage(tmp_path, monkeypatch, "20260102", "e111f8c1", '{"trial_data": [9]}')
    with pytest.raises(StorageError, match=r"Ray's state of this search was cut off by a kill.*another --out"):
        make_whole(experiment)
    assert (experiment / STATE).read_text() == ""


def test_search_killed_before_any_state_is_unchanged(experiment: Path) -> None:
    make_whole(experiment)
    assert [path.name for path in experiment.iterdir()] == ["9fcc343f"]
