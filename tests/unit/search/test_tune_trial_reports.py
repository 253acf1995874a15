"""What a trial reports after a validation, and which state it continues from; Ray Tune's session is a fake."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import Checkpoint

from maag.train.folder import RunFolder
from maag.train.reports import EpochReport
from maag.train.stopping import StopRequest
from maag.train.validate import ValidationDice
from tune.schedule import SCHEDULE
from tune.trial_reports import TrialReporter, epochs_done, inherit_state


class FakeTune:
    """As much of `ray.tune` as a trial talks to."""

    def __init__(self) -> None:
        self.handed: Checkpoint | None = None
        self.reports: list[dict[str, Any]] = []
        self.states: list[dict[str, str]] = []

    def get_checkpoint(self) -> Checkpoint | None:
        return self.handed

    def report(self, metrics: dict[str, Any], *, checkpoint: Checkpoint | None = None) -> None:
        self.reports.append(metrics)
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self.states.append({path.name: path.read_text() for path in Path(folder).iterdir()})

    def get_context(self) -> Any:
        return SimpleNamespace(get_trial_id=lambda: "a")


@pytest.fixture
def fake_tune(monkeypatch: pytest.MonkeyPatch) -> FakeTune:
    fake = FakeTune()
    for name in ("get_checkpoint", "report", "get_context"):
        monkeypatch.setattr(f"ray.tune.{name}", getattr(fake, name))
    return fake


def run_of(folder: Path, content: str, dices: Sequence[float | None] = ()) -> RunFolder:
    """A run with `content` in its files, and a line for each epoch, with Dice or without."""
    run = RunFolder(folder)
    run.last.parent.mkdir(parents=True)
    run.last.write_text(content)
    run.best.write_text(f"best of {content}")
    lines = [{"epoch": epoch, **({} if dice is None else {"mean_dice": dice})} for epoch, dice in enumerate(dices, 1)]
    run.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return run


def report_of(epoch: int, dice: float | None) -> EpochReport:
    validation = None if dice is None else ValidationDice(per_class={"a": dice}, mean=dice)
    return EpochReport(
        epoch=epoch, epochs=9, step=2 * epoch, seconds=1.0, lr=1e-3, losses={}, steps_per_second=2.0,
        validation=validation, is_best=False,
    )  # fmt: skip


def test_each_validation_is_reported_once_when_its_state_is_saved(tmp_path: Path, fake_tune: FakeTune) -> None:
    run, stop = run_of(tmp_path / "run", "x", [0.9, None, 0.7, 0.2, 0.8]), StopRequest()
    reporter = TrialReporter(run, stop, hands_over=False, ends_itself=False)
    reporter.on_epoch(report_of(2, None))
    assert not stop.save_requested
    reporter.on_epoch(report_of(5, 0.8))  # whose line the journal has written already
    assert stop.save_requested
    assert fake_tune.reports == []
    reporter.on_checkpoint(10)
    reporter.on_checkpoint(11)
    (reported,) = fake_tune.reports
    assert (reported["epoch"], reported["epochs"], reported["mean_dice"], reported["best_dice"]) == (5, 9, 0.8, 0.9)
    assert reported["objective"] == 0.7  # the middle one of .7, .2 and .8


@pytest.mark.parametrize("with_schedule", [False, True])
def test_reported_checkpoint_contains_the_whole_state(tmp_path: Path, fake_tune: FakeTune, with_schedule: bool) -> None:
    run = run_of(tmp_path / "run", "x", [0.1])
    if with_schedule:
        (run.path / SCHEDULE).write_text("settings")
    reporter = TrialReporter(run, StopRequest(), hands_over=True, ends_itself=False)
    reporter.on_epoch(report_of(1, 0.1))
    reporter.on_checkpoint(2)
    (state,) = fake_tune.states
    schedule = {SCHEDULE: "settings"} if with_schedule else {}
    assert state == {
        run.last.name: "x",
        run.best.name: "best of x",
        run.metrics.name: run.metrics.read_text(),
        **schedule,
    }


@pytest.fixture
def handed(tmp_path: Path, fake_tune: FakeTune) -> Path:
    """What Ray Tune hands over: another trial's state of two epochs."""
    folder = tmp_path / "handed"
    other = run_of(tmp_path / "other", "other", [0.4, 0.5])
    folder.mkdir()
    for file in (other.last, other.best, other.metrics):
        file.rename(folder / file.name)
    (folder / SCHEDULE).write_text("the other's settings")
    fake_tune.handed = Checkpoint.from_directory(str(folder))
    return folder


@pytest.mark.parametrize("begun", [False, True])
def test_trial_inherits_the_whole_state_of_another(tmp_path: Path, handed: Path, begun: bool) -> None:
    run = run_of(tmp_path / "run", "own", [0.1, 0.2, 0.3]) if begun else RunFolder(tmp_path / "run")
    inherit_state(run)
    assert (run.last.read_text(), run.best.read_text()) == ("other", "best of other")
    assert epochs_done(run) == 2
    assert (run.path / SCHEDULE).read_text() == "the other's settings"


def test_trial_keeps_its_files_if_given_its_own_state_or_none(
    tmp_path: Path, handed: Path, fake_tune: FakeTune
) -> None:
    run = run_of(tmp_path / "run", "other", [0.4, 0.5, None])  # one more epoch was written down since
    for state in (fake_tune.handed, None):
        fake_tune.handed = state
        inherit_state(run)
        assert epochs_done(run) == 3
        assert run.best.read_text() == "best of other"
        assert not (run.path / SCHEDULE).exists()
