"""A trial's reports to the search, and the exchange of states between trials."""

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
from tune.stop_requests import is_to_stop

if TYPE_CHECKING:
    from maag.train.folder import RunFolder
    from maag.train.reports import EpochReport, StepReport
    from maag.train.stopping import StopRequest

MEDIAN_OF = 3
"""Number of validations whose median is the objective, so that a lucky peak does not count."""


def objective(dices: Sequence[float]) -> float:
    """The objective that a search maximises: the median of the last validations' mean Dice."""
    return statistics.median(dices[-MEDIAN_OF:])


class TrialReporter:
    """Reports to Ray Tune after each validation, once the state is saved.

    Args:
        run: the trial's folder.
        stop: receives a request to save after each validation.
        hands_over: report the state too, so that the trial can continue elsewhere, or another one from it.
        ends_itself: request the end from `stop` when the search stops the trial; see `tune.stops`.
    """

    def __init__(self, run: RunFolder, stop: StopRequest, *, hands_over: bool, ends_itself: bool) -> None:
        self._run = run
        self._stop = stop
        self._ends_itself = ends_itself
        self._hands_over = hands_over
        self._waiting: dict[str, Any] | None = None

    def on_step(self, report: StepReport) -> None:
        """Ignored."""

    def on_epoch(self, report: EpochReport) -> None:
        """Remember the metrics to report with the checkpoint that follows a validation."""
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
            self._stop.save_requested = True

    def on_checkpoint(self, step: int) -> None:
        """Report the metrics and, if requested, the state."""
        if self._waiting is None:
            return
        metrics, self._waiting = self._waiting, None
        self._report(metrics)
        # `report` returns after the scheduler's decision.
        if self._ends_itself and is_to_stop(str(ray_tune.get_context().get_trial_id())):
            self._stop.interrupt("others were better")

    def _report(self, metrics: dict[str, Any]) -> None:
        if not self._hands_over:
            ray_tune.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            for file in (self._run.last, self._run.best, self._run.metrics, self._run.path / SCHEDULE):
                if file.exists():  # a schedule exists only in population based training
                    shutil.copy(file, folder)
            ray_tune.report(metrics, checkpoint=ray_tune.Checkpoint.from_directory(folder))

    def _earlier_dices(self, *, before: int) -> list[float]:
        return [line["mean_dice"] for line in _epochs(self._run) if "mean_dice" in line and line["epoch"] < before]


def epochs_done(run: RunFolder) -> int:
    """The last epoch in the run's `metrics.jsonl`; 0 if there is none."""
    return max((int(line["epoch"]) for line in _epochs(run)), default=0)


def _epochs(run: RunFolder) -> list[dict[str, Any]]:
    if not run.metrics.exists():
        return []
    return [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]


def inherit_state(run: RunFolder) -> None:
    """Copy the state that Ray Tune gives to this trial, if any: its own or another's."""
    checkpoint = ray_tune.get_checkpoint()
    if checkpoint is None:
        return
    with checkpoint.as_directory() as folder:
        handed = Path(folder) / run.last.name
        if run.last.exists() and handed.read_bytes() == run.last.read_bytes():
            return
        run.last.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(handed, run.last)
        # The state holds the best Dice so far, so the best weights must match it.
        shutil.copy(Path(folder) / run.best.name, run.best)
        # The objective is computed from the metrics, which must be those of this state.
        shutil.copy(Path(folder) / run.metrics.name, run.metrics)
        schedule = Path(folder) / SCHEDULE
        if schedule.exists():
            shutil.copy(schedule, run.path / SCHEDULE)
