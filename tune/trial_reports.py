"""What a trial tells the search, and the states that trials hand over."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune as ray_tune

from tune.schedule import SCHEDULE
from tune.stops import is_to_stop

if TYPE_CHECKING:
    from maag.train.folder import RunFolder
    from maag.train.reports import EpochReport, Live
    from maag.train.stopping import StopRequest

MEDIAN_OF = 3
"""Validations whose median is the objective: a lucky peak is not a better setting."""


def objective(dices: Sequence[float]) -> float:
    """What a search maximises: the median of the last validations' mean Dice."""
    return statistics.median(dices[-MEDIAN_OF:])


class TrialReporter:
    """Reports to Ray Tune after each validation, when the state that it belongs to is safe on disk.

    Args:
        run: the trial's folder.
        stop: is asked to save after each validation, for trials are compared by epochs, and every one counts.
        hands_over: report its state too, so that it can go on elsewhere, or another trial from it.
        ends_itself: ask `stop` for the end when the search wants it; see `tune.stops`.
    """

    def __init__(self, run: RunFolder, stop: StopRequest, *, hands_over: bool, ends_itself: bool) -> None:
        self._run = run
        self._stop = stop
        self._ends_itself = ends_itself
        self._hands_over = hands_over
        self._waiting: dict[str, Any] | None = None

    def on_live(self, live: Live) -> None:
        """Nothing."""

    def on_epoch(self, report: EpochReport) -> None:
        """Remember what the checkpoint that follows a validation will be reported with."""
        if report.validation is not None:
            dices = [*self._earlier_dices(before=report.epoch), report.validation.mean]
            self._waiting = {
                "epoch": report.epoch,
                "epochs": report.epochs,
                "mean_dice": report.validation.mean,
                "best_dice": max(dices),
                "objective": objective(dices),
                "seconds": report.seconds,
                "steps_per_second": report.steps_per_second,
            }
            self._stop.save_is_asked = True

    def on_checkpoint(self, step: int) -> None:
        """Report, and hand the state over where it may be wanted."""
        if self._waiting is None:
            return
        metrics, self._waiting = self._waiting, None
        self._report(metrics)
        # Reporting waits for the search's decision, so it has been made.
        if self._ends_itself and is_to_stop(str(ray_tune.get_context().get_trial_id())):
            self._stop.ask("others were better")

    def _report(self, metrics: dict[str, Any]) -> None:
        if not self._hands_over:
            ray_tune.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            for file in (self._run.last, self._run.best, self._run.metrics, self._run.path / SCHEDULE):
                if file.exists():  # only states that go on with other settings have a schedule
                    shutil.copy(file, folder)
            ray_tune.report(metrics, checkpoint=ray_tune.Checkpoint.from_directory(folder))

    def _earlier_dices(self, *, before: int) -> list[float]:
        return [line["mean_dice"] for line in _epochs(self._run) if "mean_dice" in line and line["epoch"] < before]


def epochs_done(run: RunFolder) -> int:
    """The last epoch of the run's state."""
    return max((int(line["epoch"]) for line in _epochs(run)), default=0)


def _epochs(run: RunFolder) -> list[dict[str, Any]]:
    if not run.metrics.exists():
        return []
    return [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]


def inherit_state(run: RunFolder) -> None:
    """Take over the state that Ray Tune hands to this trial, its own or another's, if it does."""
    checkpoint = ray_tune.get_checkpoint()
    if checkpoint is None:
        return
    with checkpoint.as_directory() as folder:
        handed = Path(folder) / run.last.name
        if run.last.exists() and handed.read_bytes() == run.last.read_bytes():
            return
        run.last.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(handed, run.last)
        # The state remembers how good the best was, so that one has to come with it.
        shutil.copy(Path(folder) / run.best.name, run.best)
        # And the objective is of this state's validations, not of those that another one had.
        shutil.copy(Path(folder) / run.metrics.name, run.metrics)
        # Nor is its recipe this one's so far.
        schedule = Path(folder) / SCHEDULE
        if schedule.exists():
            shutil.copy(schedule, run.path / SCHEDULE)
