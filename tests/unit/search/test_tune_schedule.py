"""The record of a trial's settings by epoch."""

from __future__ import annotations

from pathlib import Path

from tune.schedule import note_settings, read_schedule

SLOW, FAST, FASTER = {"optim.lr": 1e-4}, {"optim.lr": 1e-3}, {"optim.lr": 2e-3}


def test_a_schedule_has_a_line_for_each_change(tmp_path: Path) -> None:
    path = tmp_path / "schedule.jsonl"
    assert read_schedule(path) == []
    note_settings(path, 0, SLOW)
    note_settings(path, 2, SLOW)  # resumed
    note_settings(path, 4, FAST)
    assert read_schedule(path) == [{"from_epoch": 1, "settings": SLOW}, {"from_epoch": 5, "settings": FAST}]
    note_settings(path, 3, FASTER)  # from an earlier state than the last one
    assert read_schedule(path) == [{"from_epoch": 1, "settings": SLOW}, {"from_epoch": 4, "settings": FASTER}]


def test_settings_replaced_before_any_epoch_are_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "schedule.jsonl"
    for epochs_done, settings in ((0, SLOW), (2, FAST), (2, FASTER)):
        note_settings(path, epochs_done, settings)
    assert read_schedule(path) == [{"from_epoch": 1, "settings": SLOW}, {"from_epoch": 3, "settings": FASTER}]


def test_settings_used_for_one_epoch_stay_in_the_schedule(tmp_path: Path) -> None:
    path = tmp_path / "schedule.jsonl"
    for epochs_done, settings in enumerate((SLOW, FAST, FASTER)):
        note_settings(path, epochs_done, settings)
    assert [line["settings"] for line in read_schedule(path)] == [SLOW, FAST, FASTER]
    assert [line["from_epoch"] for line in read_schedule(path)] == [1, 2, 3]
