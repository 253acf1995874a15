"""What a search is asked for, and the record of how it goes."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from ray import tune as ray_tune
from ray.tune.experiment import Trial

from maag import checkpoint
from tune.results import Status, TrialResult, best_of, draw_search, importance, write_best, write_trials
from tune.schedule import SCHEDULE
from tune.space import SPACE
from tune.trial import TrialPlan

Algorithm = Literal["tpe", "random", "pbt"]
OBJECTIVE: Final = "objective"
"""The name under which trials report it."""
_STATUSES: dict[str, Status] = {
    Trial.PENDING: "waiting",
    Trial.PAUSED: "waiting",
    Trial.RUNNING: "running",
    Trial.ERROR: "failed",
}


_GOING_ON: tuple[Status, ...] = ("waiting", "running")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """How to search."""

    out: Path
    trials: int
    at_once: int
    epochs: int
    """Of a trial that is not stopped early."""
    validations: int
    """Of such a trial; at each of them poor trials may be stopped."""
    algorithm: Algorithm
    max_minutes: float | None
    """Then it is interrupted, and can be resumed."""
    gpus_per_trial: float
    address: str | None
    """Of a running Ray cluster; None starts one here, with a CPU for each trial at once."""
    storage: str | None
    """Where trials' states go that all nodes can reach; None: the nodes share `out`."""
    seed: int
    wait_minutes: float = 0.0
    """For nodes that an autoscaler starts."""
    space: Mapping[str, Any] = field(default_factory=lambda: SPACE)
    """Distributions by dotted setting."""


Watcher = Callable[[Sequence[TrialResult]], None]
"""Told how all trials stand, whenever one of them moves."""


class Recorder(ray_tune.Callback):
    """Keeps how all trials stand, on disk and for the watcher; a Callback of Ray Tune."""

    def __init__(self, plan: SearchPlan, trial: TrialPlan, watcher: Watcher) -> None:
        self._plan = plan
        self._trial = trial
        self._watcher = watcher
        self._trials: list[Trial] = []
        self._told: tuple[TrialResult, ...] = ()
        self._cut: set[str] = set()
        self._ends_at = math.inf if plan.max_minutes is None else time.monotonic() + 60 * plan.max_minutes

    @property
    def results(self) -> tuple[TrialResult, ...]:
        """All trials as they stand."""
        found = (_result(trial, self._plan.epochs) for trial in self._trials)
        return tuple(replace(each, status="waiting") if self._was_cut(each) else each for each in found)

    def finish(self) -> None:
        """Write everything that needs all trials."""
        results = self.results
        best = best_of(results)
        write_trials(self._plan.out / "trials.csv", results)
        if best is not None:
            self._write_best(best)
            draw_search(self._plan.out / "search.png", results, importance(results))

    def _write_best(self, best: TrialResult) -> None:
        if self._plan.storage is None:
            run = Path(self._trial.trials_dir) / best.trial
            write_best(self._plan.out, best, self._trial, run / "checkpoints" / checkpoint.BEST, run / SCHEDULE)
            return
        (trial,) = (trial for trial in self._trials if trial.trial_id == best.trial)
        assert trial.checkpoint is not None  # it was measured, so it was handed over
        with trial.checkpoint.as_directory() as folder:
            handed = Path(folder)
            write_best(self._plan.out, best, self._trial, handed / checkpoint.BEST, handed / SCHEDULE)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ray's, after each of its events."""
        self._trials = list(trials)
        if self.results != self._told:
            self._tell()
        if time.monotonic() > self._ends_at:
            self._ends_at = math.inf
            # Ray's own time limit would end the trials for good; interrupted, they and the search can go on.
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Ray's, at the end."""
        # All are ended now, but what had not ended by the last event is cut short, and goes on with a resume.
        self._cut = {each.trial for each in self._told if each.status in _GOING_ON}
        self._trials = list(trials)
        self._tell()

    def get_state(self) -> None:
        """Nothing is kept: it is read from the trials."""
        return

    def __getstate__(self) -> dict[str, Any]:
        """A display cannot travel, and need not."""
        return {}

    def _was_cut(self, result: TrialResult) -> bool:
        return result.trial in self._cut and result.status == "stopped"

    def _tell(self) -> None:
        self._told = self.results
        write_trials(self._plan.out / "trials.csv", self._told)
        self._watcher(self._told)


def _result(trial: Trial, epochs: int) -> TrialResult:
    metrics = trial.last_result or {}
    epoch = int(metrics.get("epoch", 0))
    status = _STATUSES.get(trial.status, "done" if epoch >= epochs else "stopped")
    error = ""
    if status == "failed":
        error = _first_line(trial)
    return TrialResult(
        trial=str(trial.trial_id),
        sample=dict(trial.config),
        status=status,
        epoch=epoch,
        epochs=epochs,
        objective=metrics.get(OBJECTIVE),
        best_dice=metrics.get("best_dice"),
        mean_dice=metrics.get("mean_dice"),
        seconds=float(metrics.get("seconds", 0.0)),
        error=error,
    )


def _first_line(trial: Trial) -> str:
    """What went wrong, without Ray's frames around it."""
    raised = trial.get_error()
    text = str(raised.cause if hasattr(raised, "cause") and raised.cause else raised) if raised else "unknown"
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(raised).__name__
