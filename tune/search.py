"""A search over settings with Ray Tune: sample, train, stop the poor early, resume after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
import ray
from ray import tune as ray_tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

from maag.errors import StorageError, TrainingError
from tune.results import Status, TrialResult, best_of, draw_search, importance, write_best, write_trials
from tune.space import CHANGEABLE, SPACE
from tune.trial import TrialPlan, run_trial

Algorithm = Literal["tpe", "random", "pbt"]
_EXPERIMENT = "ray"
_METRIC = "objective"
_KEEP_ONE_IN = 3  # of the trials at each rung of successive halving
_STATUSES: dict[str, Status] = {
    Trial.PENDING: "waiting",
    Trial.PAUSED: "waiting",
    Trial.RUNNING: "running",
    Trial.ERROR: "failed",
}


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
    gpus_per_trial: float
    address: str | None
    """Of a running Ray cluster; None starts one here, with a CPU for each trial at once."""
    seed: int
    space: Mapping[str, Any] = field(default_factory=lambda: SPACE)
    """Distributions by dotted setting."""


Watcher = Callable[[Sequence[TrialResult]], None]
"""Told how all trials stand, whenever one of them moves."""


def search(plan: SearchPlan, trial: TrialPlan, watcher: Watcher, *, resume: bool) -> tuple[TrialResult, ...]:
    """Run the search to its end, and write what it found to `plan.out` as it goes.

    Args:
        plan: how to search.
        trial: what the trials share.
        watcher: told of every change.
        resume: go on with the search in `plan.out`: finished trials stay, others continue from their checkpoints.

    Returns:
        All trials.

    Raises:
        StorageError: there is nothing to resume.
        TrainingError: every trial failed; the first one's error is told.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    _start_ray(plan)
    try:
        recorder = _Recorder(plan, trial, watcher)
        tuner = _restored(plan, trial, recorder) if resume else _new_tuner(plan, trial, recorder)
        tuner.fit()
        recorder.finish()
    finally:
        ray.shutdown()
    results = recorder.results
    if results and all(result.status == "failed" for result in results):
        raise TrainingError(
            f"all {len(results)} trials failed, the first with: {results[0].error}; {plan.out / 'trials.csv'} has the "
            f"others, and Ray's logs are in {plan.out / _EXPERIMENT}"
        )
    return results


def _start_ray(plan: SearchPlan) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Progress is told by the watcher; Ray's own tables would be printed over it.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Which trial has which sample is written down at once, or a kill would lose the newest trials.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if plan.address:
        ray.init(address=plan.address, **quiet)
    else:
        ray.init(num_cpus=plan.at_once, include_dashboard=False, **quiet)


def _trainable(plan: SearchPlan, trial: TrialPlan) -> Any:
    function = ray_tune.with_parameters(_run, plan=trial)
    return ray_tune.with_resources(function, {"cpu": 1, "gpu": plan.gpus_per_trial})


def _run(sample: dict[str, Any], plan: TrialPlan) -> None:
    run_trial(sample, plan)


def _new_tuner(plan: SearchPlan, trial: TrialPlan, recorder: _Recorder) -> ray_tune.Tuner:
    space = {name: plan.space[name] for name in plan.space if plan.algorithm != "pbt" or name in CHANGEABLE}
    searcher: Searcher | None = None
    if plan.algorithm == "tpe":
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # More at once than a few and the sampler would learn nothing from one trial for the next.
        searcher = ConcurrencyLimiter(
            OptunaSearch(metric=_METRIC, mode="max", seed=plan.seed), max_concurrent=plan.at_once
        )
    return ray_tune.Tuner(
        _trainable(plan, trial),
        param_space=space,
        tune_config=ray_tune.TuneConfig(
            metric=None if searcher else _METRIC,
            mode=None if searcher else "max",
            num_samples=plan.trials,
            max_concurrent_trials=None if searcher else plan.at_once,
            search_alg=searcher,
            scheduler=_scheduler(plan),
            time_budget_s=None if plan.max_minutes is None else 60 * plan.max_minutes,
            reuse_actors=True,  # a fresh process would load everything again for each trial
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=ray_tune.RunConfig(
            name=_EXPERIMENT, storage_path=str(plan.out.resolve()), verbose=0, callbacks=[recorder]
        ),
    )


def _scheduler(plan: SearchPlan) -> TrialScheduler:
    between = max(1, plan.epochs // plan.validations)
    if plan.algorithm == "pbt":
        return PopulationBasedTraining(
            time_attr="epoch",
            metric=_METRIC,
            mode="max",
            perturbation_interval=between,
            hyperparam_mutations={name: plan.space[name] for name in CHANGEABLE if name in plan.space},
        )
    if plan.trials == 1:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    searcher_has_metric = plan.algorithm == "tpe"
    return ASHAScheduler(
        time_attr="epoch",
        metric=_METRIC if searcher_has_metric else None,
        mode="max" if searcher_has_metric else None,
        max_t=plan.epochs,
        grace_period=max(between, plan.epochs // _KEEP_ONE_IN),
        reduction_factor=_KEEP_ONE_IN,
    )


def _restored(plan: SearchPlan, trial: TrialPlan, recorder: _Recorder) -> ray_tune.Tuner:
    path = str(plan.out.resolve() / _EXPERIMENT)
    if not ray_tune.Tuner.can_restore(path):
        raise StorageError(f"{plan.out}: there is no search here to resume; start without --resume")
    tuner = ray_tune.Tuner.restore(path, _trainable(plan, trial), resume_unfinished=True)
    # Ray restores the callbacks of the run that was killed, whose display is gone.
    assert tuner._local_tuner is not None
    tuner._local_tuner._run_config.callbacks = [recorder]
    return tuner


class _Recorder(ray_tune.Callback):
    """Keeps how all trials stand, on disk and for the watcher."""

    def __init__(self, plan: SearchPlan, trial: TrialPlan, watcher: Watcher) -> None:
        self._plan = plan
        self._trial = trial
        self._watcher = watcher
        self._trials: list[Trial] = []

    @property
    def results(self) -> tuple[TrialResult, ...]:
        """All trials as they stand."""
        return tuple(_result(trial, self._plan.epochs) for trial in self._trials)

    def finish(self) -> None:
        """Write everything that needs all trials."""
        results = self.results
        best = best_of(results)
        write_trials(self._plan.out / "trials.csv", results)
        if best is not None:
            write_best(self._plan.out, best, self._trial)
            draw_search(self._plan.out / "search.png", results, importance(results))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ray's, after each of its events."""
        before = self.results
        self._trials = list(trials)
        if self.results != before:
            self._tell()

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Ray's, at the end."""
        self._trials = list(trials)
        self._tell()

    def get_state(self) -> None:
        """Nothing is kept: it is read from the trials."""
        return

    def __getstate__(self) -> dict[str, Any]:
        """A display cannot travel, and need not."""
        return {}

    def _tell(self) -> None:
        results = self.results
        write_trials(self._plan.out / "trials.csv", results)
        self._watcher(results)


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
        objective=metrics.get(_METRIC),
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
