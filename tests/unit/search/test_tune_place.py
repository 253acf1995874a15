"""Whether there is a search to go on with, or one that would be overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.errors import StorageError
from tune.place import goes_on
from tune.results import TrialResult, write_trials


def test_a_search_that_lost_its_state_begins_anew_only_where_nothing_was_measured(tmp_path: Path) -> None:
    assert not goes_on(None, tmp_path)
    begun = TrialResult(trial="begun", sample={}, status="running")
    write_trials(tmp_path / "trials.csv", [begun])
    assert not goes_on(None, tmp_path)
    write_trials(tmp_path / "trials.csv", [begun, TrialResult(trial="a", sample={}, status="stopped", objective=0.5)])
    for storage in (None, str(tmp_path / "other")):
        with pytest.raises(StorageError, match=r"is missing, but .*trials.csv has 1 measured trials"):
            goes_on(storage, tmp_path)
