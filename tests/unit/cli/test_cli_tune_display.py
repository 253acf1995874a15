"""The progress of a search."""

from __future__ import annotations

import pytest

from maag.cli.tune_display import SearchDisplay
from tune.results import Status, TrialResult


def results(*statuses: Status) -> list[TrialResult]:
    return [
        TrialResult(trial=str(number), sample={}, status=status, epoch=number) for number, status in enumerate(statuses)
    ]


def test_time_left_counts_only_trials_that_ended_since_the_search_was_resumed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    display = SearchDisplay(6, clock=lambda: now[0])
    display.show(results("done", "stopped", "failed", "running"))
    assert "left" not in capsys.readouterr().err
    now[0] = 60.0
    display.show(results("done", "stopped", "failed", "done", "running"))
    assert "2:00 left" in capsys.readouterr().err
