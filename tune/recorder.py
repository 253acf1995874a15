"""The plan of a search, and the record of its trials."""

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
from tune.failures import MAX_RETRIES
from tune.results import Status, TrialResult, best_of, draw_search, importance, write_best, write_trials
from tune.schedule import SCHEDULE
from tune.space import SPACE
from tune.trial import TrialPlan

Algorithm = Literal["tpe", "random", "pbt"]
OBJECTIVE: Final = "objective"
"""Name of the metric that trials report."""
_STATUSES: dict[str, Status] = {
    Trial.PENDING: "waiting",
    Trial.PAUSED: "waiting",
    Trial.RUNNING: "running",
    Trial.ERROR: "failed",
}
_ACTIVE: tuple[Status, ...] = ("waiting", "running")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """Settings of a search."""

    out: Path
    trials: int
    at_once: int
    epochs: int
    """Of a trial that is not stopped early."""
    validations: int
    """Of such a trial; at each of them poor trials may be stopped."""
    algorithm: Algorithm
    max_minutes: float | None
    """Time limit, at which the search is interrupted and can be resumed."""
    gpus_per_trial: float
    address: str | None
    """Of a running Ray cluster; None starts one here, with a CPU for each concurrent trial."""
    storage: str | None
    """Storage that all nodes can reach, for the trials' states; None: the nodes share `out`."""
    seed: int
    retries: int = MAX_RETRIES
    """Of a trial that fails, each from its own last checkpoint."""
    wait_minutes: float = 0.0
    """How long to wait for nodes that an autoscaler starts."""
    space: Mapping[str, Any] = field(default_factory=lambda: SPACE)
    """Distributions by dotted setting."""


Watcher = Callable[[Sequence[TrialResult]], None]
"""Called with the results of all trials whenever one of them changes."""


class Recorder(ray_tune.Callback):
    """Records the results of all trials on disk and for the watcher; a Callback of Ray Tune."""

    def __init__(
        self, plan: SearchPlan, trial: TrialPlan, watcher: Watcher, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan = plan
        self._trial = trial
        self._watcher = watcher
        self._trials: list[Trial] = []
        self._recorded: tuple[TrialResult, ...] = ()
        self._interrupted: set[str] = set()
        self._clock = clock
        self._ends_at = math.inf if plan.max_minutes is None else clock() + 60 * plan.max_minutes

    @property
    def results(self) -> tuple[TrialResult, ...]:
        """The current results of all trials."""
        found = (_result(trial, self._plan.epochs) for trial in self._trials)
        return tuple(replace(each, status="waiting") if self._was_interrupted(each) else each for each in found)

    def finish(self) -> None:
        """Write the final results: trials, best model, plot."""
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
        assert trial.checkpoint is not None  # a measured trial has reported its checkpoint
        with trial.checkpoint.as_directory() as folder:
            reported = Path(folder)
            write_best(self._plan.out, best, self._trial, reported / checkpoint.BEST, reported / SCHEDULE)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Ray after each of its events."""
        self._trials = list(trials)
        if self.results != self._recorded:
            self._record()
        if self._clock() > self._ends_at:
            self._ends_at = math.inf
            # Ray's own time limit would terminate the trials; interrupted, they and the search can resume.
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Called by Ray at the end."""
        # Ray reports all trials as ended, but those still active at the last event continue on a resume.
        self._interrupted = {each.trial for each in self._recorded if each.status in _ACTIVE}
        self._trials = list(trials)
        self._record()

    def get_state(self) -> None:
        """No state: results are read from the trials."""
        return

    def __getstate__(self) -> dict[str, Any]:
        """No state: a display cannot be pickled."""
        return {}

    def _was_interrupted(self, result: TrialResult) -> bool:
        return result.trial in self._interrupted and result.status == "stopped"

    def _record(self) -> None:
        self._recorded = self.results
        write_trials(self._plan.out / "trials.csv", self._recorded)
        self._watcher(self._recorded)


def _result(trial: Trial, epochs: int) -> TrialResult:
    metrics = trial.last_result or {}
    epoch = int(metrics.get("epoch", 0))
    status = _STATUSES.get(trial.status, "done" if epoch >= epochs else "stopped")
    error = ""
    if status == "failed":
        error = _error_line(trial)
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


def _error_line(trial: Trial) -> str:
    """The last line of a trial's error, without Ray's traceback."""
    raised = trial.get_error()
    text = str(raised.cause if hasattr(raised, "cause") and raised.cause else raised) if raised else "unknown"
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(raised).__name__
