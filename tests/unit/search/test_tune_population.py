"""Population based training after a kill."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

from ray import tune as ray_tune
from ray.tune.experiment import Trial

from tune.population import Population
from tune.rungs import Rungs


class Controller:
    """The part of Ray Tune's controller that a population uses."""

    search_alg = None

    def __init__(self, *trials: Any) -> None:
        self.trials = trials
        self.paused: list[str] = []

    def get_trials(self) -> tuple[Any, ...]:
        return self.trials

    def _schedule_trial_save(self, trial: Any, result: Any) -> str:
        return f"saved by {trial.trial_id}"

    def pause_trial(self, trial: Any, should_checkpoint: bool) -> None:
        self.paused.append(trial.trial_id)


class Member(SimpleNamespace):
    """A trial of Ray Tune."""

    def __init__(self, name: str) -> None:
        kept = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None), _latest_checkpoint_result=None)
        super().__init__(
            trial_id=name, config={"rate": 0.1}, evaluated_params={}, experiment_tag=name, status=Trial.RUNNING,
            run_metadata=SimpleNamespace(checkpoint_manager=kept), checkpoint=f"state of {name}",
            last_result={"epoch": 3}, local_path=None, storage=None,
        )  # fmt: skip

    __hash__ = object.__hash__

    def is_finished(self) -> bool:
        return False

    def set_experiment_tag(self, tag: str) -> None:
        self.experiment_tag = tag

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config

    @property
    def begins_from(self) -> object:
        result = self.run_metadata.checkpoint_manager._latest_checkpoint_result
        return result and result.checkpoint


def population() -> Population:
    return Population(
        time_attr="epoch", metric="objective", mode="max", perturbation_interval=2, log_config=False,
        hyperparam_mutations={"rate": ray_tune.uniform(0.05, 0.5)},
    )  # fmt: skip


def add_members(scheduler: Population) -> tuple[Controller, Member, Member]:
    good, poor = Member("good"), Member("poor")
    controller: Any = Controller(good, poor)
    for trial in controller.trials:
        scheduler.on_trial_add(controller, trial)
    return controller, good, poor


def report(scheduler: Population, controller: Any, trial: Any, epoch: int, objective: float) -> None:
    scheduler.on_trial_result(controller, trial, {"epoch": epoch, "objective": objective})


def state_of_killed_population() -> dict[str, Any]:
    killed = population()
    controller, good, poor = add_members(killed)
    report(killed, controller, poor, 2, 0.5)
    report(killed, controller, good, 2, 0.9)
    state = Rungs(killed).get_state()
    assert state is not None
    restored: dict[str, Any] = pickle.loads(pickle.dumps(state))
    return restored


def test_resumed_population_compares_with_trials_that_have_not_reported_since() -> None:
    forgetful = population()
    controller, _, poor = add_members(forgetful)
    report(forgetful, controller, poor, 4, 0.5)
    assert controller.paused == []  # nothing to compare it with

    resumed = population()
    Rungs(resumed).set_state(state_of_killed_population())
    controller, _, poor = add_members(resumed)
    report(resumed, controller, poor, 4, 0.5)
    assert controller.paused == ["poor"]
    assert poor.begins_from == "state of good"


def test_resumed_population_compares_no_trial_before_its_interval_ends() -> None:
    resumed = population()
    Rungs(resumed).set_state(state_of_killed_population())
    controller, _, poor = add_members(resumed)
    report(resumed, controller, poor, 3, 0.1)
    assert controller.paused == []
    assert resumed.members()["poor"] == {"score": 0.5, "trained": 2, "compared": 2}


def test_trial_that_was_never_compared_is_not_saved() -> None:
    fresh = population()
    controller, good, _ = add_members(fresh)
    report(fresh, controller, good, 2, 0.9)
    assert list(fresh.members()) == ["good"]


def test_population_restores_the_state_of_its_members() -> None:
    known = {"good": {"score": 0.9, "trained": 4, "compared": 3}, "poor": {"score": 0.5, "trained": 2, "compared": 1}}
    resumed = population()
    Rungs(resumed).set_state({"members": known})
    add_members(resumed)
    assert resumed.members() == known
