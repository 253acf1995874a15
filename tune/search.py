"""A search over settings with Ray Tune: sample, train, stop poor trials early, resume after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import SearchAlgorithm
from ray.tune.search.optuna import OptunaSearch

from maag import checkpoint
from maag.config import codec
from maag.errors import TrainingError
from maag.train.launch.connection import connected
from maag.train.launch.remote import upload
from maag.train.launch.room import require_room
from maag.train.stopping import restoring_sigint
from tune.place import BEGUN_WITH, EXPERIMENT, beside, can_resume, ray_place
from tune.population import Population
from tune.recorder import OBJECTIVE, Recorder, SearchPlan, Watcher
from tune.results import LEFT_BEHIND, TrialResult
from tune.rungs import Rungs
from tune.searchers import ResumableOptuna, ResumableVariants
from tune.space import CHANGEABLE, starting_point, within
from tune.stop_requests import start_stops
from tune.stops import GentleASHA
from tune.trial import TrialPlan, note_shortfalls_of, run_trial

_REDUCTION_FACTOR = 3  # of successive halving: at each rung one in three trials continues


def search(
    plan: SearchPlan,
    trial: TrialPlan,
    watcher: Watcher,
    *,
    resume: bool,
    notify: Callable[[str], None] = lambda sentence: None,
) -> tuple[TrialResult, ...]:
    """Run the search, and write its results to `plan.out` as it proceeds.

    Args:
        plan: settings of the search.
        trial: what all trials have in common.
        watcher: called on every change of a trial.
        resume: continue the search in `plan.out`: finished trials are kept; the others, including those that failed,
            continue from their checkpoints.
        notify: receives sentences about the work after the trials, see `note_shortfalls_of`.

    Returns:
        All trials.

    Raises:
        TrainingError: every trial failed; the message has the error of the first.
        StorageError: Ray's state of the search is missing, or was cut off by a kill.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    # The watcher shows progress; Ray's own tables would overwrite it.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Ray saves its state at every event, or a kill would lose the newest trials; less often in a bucket, which is slow.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5" if plan.storage else "0")
    # One more than the workers need, for the fractions of a CPU of the trials that wait for them.
    num_cpus = plan.at_once if trial.workers == 1 else plan.at_once * trial.workers + 1
    with connected(plan.address, num_cpus):
        if plan.address:
            require_room(trial.workers, trial.workers, gpu=plan.gpus_per_trial > 0, wait_minutes=plan.wait_minutes)
        stops = start_stops() if trial.workers > 1 else None
        recorder = Recorder(plan, trial, watcher)
        resumes = resume and can_resume(plan.storage, plan.out)
        tuner = _restored(plan, trial, recorder) if resumes else _new_tuner(plan, trial, recorder)
        # Ray Tune replaces the handler of Ctrl-C, and would ignore the first one in what follows.
        with restoring_sigint():
            tuner.fit()
        del stops
        recorder.finish()
        if (best := plan.out / "checkpoints" / checkpoint.BEST).exists():
            note_shortfalls_of(best, trial, notify)
    if plan.storage:
        upload(plan.out, (*LEFT_BEHIND, *BEGUN_WITH), beside(plan.storage, plan.out))
    results = recorder.results
    if results and all(result.status == "failed" for result in results):
        raise TrainingError(
            f"all {len(results)} trials failed, the first with: {results[0].error}; {plan.out / 'trials.csv'} has the "
            f"others, and Ray's logs are in {plan.out / EXPERIMENT}"
        )
    return results


def _trainable(plan: SearchPlan, trial: TrialPlan) -> Any:
    function = ray_tune.with_parameters(_run, plan=trial)
    # A trial with several workers only waits for them; they reserve their own resources.
    alone = {"cpu": 1, "gpu": plan.gpus_per_trial}
    return ray_tune.with_resources(function, alone if trial.workers == 1 else {"cpu": 0.01})


def _run(sample: dict[str, Any], plan: TrialPlan) -> None:
    run_trial(sample, plan)


def _new_tuner(plan: SearchPlan, trial: TrialPlan, recorder: Recorder) -> ray_tune.Tuner:
    storage, name = ray_place(plan.storage, plan.out)
    space = {path: plan.space[path] for path in plan.space if plan.algorithm != "pbt" or path in CHANGEABLE}
    start = starting_point(codec.from_dict(trial.base), space)
    scheduler = _scheduler(plan, gentle=trial.workers > 1)
    return ray_tune.Tuner(
        _trainable(plan, trial),
        param_space=space,
        tune_config=ray_tune.TuneConfig(
            metric=None if plan.algorithm == "tpe" else OBJECTIVE,
            mode=None if plan.algorithm == "tpe" else "max",
            num_samples=plan.trials,
            search_alg=_searcher(plan, [start] if start else None),
            scheduler=scheduler,
            # A new process per trial would import everything again. But workers end only with the process that started
            # them, and an exchanged state must not be read while the process of another trial still writes to it.
            reuse_actors=trial.workers == 1 and not trial.exchange,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=ray_tune.RunConfig(
            name=name,
            storage_path=storage,
            verbose=0,
            callbacks=[recorder, Rungs(scheduler)],
            failure_config=ray_tune.FailureConfig(max_failures=plan.retries),
            # The state that another trial will continue from must still exist when that trial has started.
            checkpoint_config=ray_tune.CheckpointConfig(num_to_keep=None if trial.exchange else 2),
        ),
    )


def _searcher(plan: SearchPlan, points: list[dict[str, Any]] | None) -> SearchAlgorithm:
    """The search algorithm; it samples `points` first."""
    if plan.algorithm != "tpe":
        # The whole population must be alive at once, so concurrency is not limited there.
        at_once = 0 if plan.algorithm == "pbt" else plan.at_once
        return ResumableVariants(points_to_evaluate=points, max_concurrent=at_once, random_state=plan.seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # With too many concurrent trials the sampler could not learn from earlier ones.
    return ResumableOptuna(
        OptunaSearch(metric=OBJECTIVE, mode="max", seed=plan.seed, points_to_evaluate=points),
        max_concurrent=plan.at_once,
    )


def _scheduler(plan: SearchPlan, *, gentle: bool) -> TrialScheduler:
    between = max(1, plan.epochs // plan.validations)
    if plan.algorithm == "pbt":
        return Population(
            time_attr="epoch",
            perturbation_interval=between,
            hyperparam_mutations={name: plan.space[name] for name in CHANGEABLE if name in plan.space},
            custom_explore_fn=partial(within, space=plan.space),
        )
    if plan.trials == 1:
        return FIFOScheduler()
    searcher_has_metric = plan.algorithm == "tpe"
    asha = GentleASHA if gentle else ASHAScheduler
    return asha(
        time_attr="epoch",
        metric=OBJECTIVE if searcher_has_metric else None,
        mode="max" if searcher_has_metric else None,
        max_t=plan.epochs,
        grace_period=max(between, plan.epochs // _REDUCTION_FACTOR),
        reduction_factor=_REDUCTION_FACTOR,
    )


def _restored(plan: SearchPlan, trial: TrialPlan, recorder: Recorder) -> ray_tune.Tuner:
    place = "/".join(ray_place(plan.storage, plan.out))
    tuner = ray_tune.Tuner.restore(place, _trainable(plan, trial), resume_errored=True)
    # Ray restores the callbacks of the killed process, whose display is gone; these replace them and get their state.
    assert tuner._local_tuner is not None
    scheduler = tuner._local_tuner._tune_config.scheduler
    assert scheduler is not None
    tuner._local_tuner._run_config.callbacks = [recorder, Rungs(scheduler)]
    return tuner
