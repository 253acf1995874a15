"""A search over settings with Ray Tune: sample, train, stop the poor early, resume after a kill."""

from __future__ import annotations

import os
from typing import Any

import optuna
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from maag.config import codec
from maag.errors import StorageError, TrainingError
from maag.train.launch.connection import connected
from tune.recorder import OBJECTIVE, Recorder, SearchPlan, Watcher
from tune.results import TrialResult
from tune.space import CHANGEABLE, starting_point
from tune.trial import TrialPlan, run_trial

_EXPERIMENT = "ray"
_KEEP_ONE_IN = 3  # of the trials at each rung of successive halving


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
    # Progress is told by the watcher; Ray's own tables would be printed over it.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Which trial has which sample is written down at once, or a kill would lose the newest trials.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "0")
    with connected(plan.address, num_cpus=plan.at_once):
        recorder = Recorder(plan, trial, watcher)
        tuner = _restored(plan, trial, recorder) if resume else _new_tuner(plan, trial, recorder)
        tuner.fit()
        recorder.finish()
    results = recorder.results
    if results and all(result.status == "failed" for result in results):
        raise TrainingError(
            f"all {len(results)} trials failed, the first with: {results[0].error}; {plan.out / 'trials.csv'} has the "
            f"others, and Ray's logs are in {plan.out / _EXPERIMENT}"
        )
    return results


def _trainable(plan: SearchPlan, trial: TrialPlan) -> Any:
    function = ray_tune.with_parameters(_run, plan=trial)
    return ray_tune.with_resources(function, {"cpu": 1, "gpu": plan.gpus_per_trial})


def _run(sample: dict[str, Any], plan: TrialPlan) -> None:
    run_trial(sample, plan)


def _new_tuner(plan: SearchPlan, trial: TrialPlan, recorder: Recorder) -> ray_tune.Tuner:
    space = {name: plan.space[name] for name in plan.space if plan.algorithm != "pbt" or name in CHANGEABLE}
    start = starting_point(codec.from_dict(trial.base), space)
    points = [start] if start else None
    searcher: SearchAlgorithm | Searcher
    if plan.algorithm != "tpe":
        searcher = BasicVariantGenerator(points_to_evaluate=points, max_concurrent=plan.at_once, random_state=plan.seed)
    else:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # More at once than a few and the sampler would learn nothing from one trial for the next.
        searcher = ConcurrencyLimiter(
            OptunaSearch(metric=OBJECTIVE, mode="max", seed=plan.seed, points_to_evaluate=points),
            max_concurrent=plan.at_once,
        )
    return ray_tune.Tuner(
        _trainable(plan, trial),
        param_space=space,
        tune_config=ray_tune.TuneConfig(
            metric=None if plan.algorithm == "tpe" else OBJECTIVE,
            mode=None if plan.algorithm == "tpe" else "max",
            num_samples=plan.trials,
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
            perturbation_interval=between,
            hyperparam_mutations={name: plan.space[name] for name in CHANGEABLE if name in plan.space},
        )
    if plan.trials == 1:
        return FIFOScheduler()
    searcher_has_metric = plan.algorithm == "tpe"
    return ASHAScheduler(
        time_attr="epoch",
        metric=OBJECTIVE if searcher_has_metric else None,
        mode="max" if searcher_has_metric else None,
        max_t=plan.epochs,
        grace_period=max(between, plan.epochs // _KEEP_ONE_IN),
        reduction_factor=_KEEP_ONE_IN,
    )


def _restored(plan: SearchPlan, trial: TrialPlan, recorder: Recorder) -> ray_tune.Tuner:
    path = str(plan.out.resolve() / _EXPERIMENT)
    if not ray_tune.Tuner.can_restore(path):
        raise StorageError(f"{plan.out}: there is no search here to resume; start without --resume")
    tuner = ray_tune.Tuner.restore(path, _trainable(plan, trial), resume_unfinished=True)
    # Ray restores the callbacks of the run that was killed, whose display is gone.
    assert tuner._local_tuner is not None
    tuner._local_tuner._run_config.callbacks = [recorder]
    return tuner
