"""Whether there is a search to resume, or one that would be overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.errors import StorageError
from tune.place import BEGUN_WITH, TRIALS, can_resume, fetch
from tune.results import TrialResult, write_trials


def test_search_without_state_restarts_only_if_no_trial_was_measured(tmp_path: Path) -> None:
    assert not can_resume(None, tmp_path)
    begun = TrialResult(trial="begun", sample={}, status="running")
    write_trials(tmp_path / "trials.csv", [begun])
    assert not can_resume(None, tmp_path)
    write_trials(tmp_path / "trials.csv", [begun, TrialResult(trial="a", sample={}, status="stopped", objective=0.5)])
    for storage in (None, str(tmp_path / "other")):
        with pytest.raises(StorageError, match=r"is missing, but .*trials.csv has 1 measured trials"):
            can_resume(storage, tmp_path)


def test_fetch_copies_the_files_of_the_search_with_that_name(tmp_path: Path) -> None:
    names = (*BEGUN_WITH, TRIALS)
    for search in ("mine", "other"):
        place = tmp_path / "storage" / search / "search"
        place.mkdir(parents=True)
        for name in names:
            (place / name).write_text(f"{name} of {search}")
    out = tmp_path / "mine"
    fetch(str(tmp_path / "storage"), out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: f"{name} of mine" for name in names}
