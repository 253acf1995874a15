"""Stopping trials that train on workers of their own.

Ray Tune stops a trial by ending its process, and the places that Ray Train reserved for its workers would stay taken.
So such a trial is told to stop, and ends by itself.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.tune.schedulers import ASHAScheduler

_NAME = "maag-stops"


class Stops:
    """An actor that remembers which trials are to stop."""

    def __init__(self) -> None:
        self._trials: set[str] = set()

    def add(self, trial_id: str) -> None:
        """This one is to stop."""
        self._trials.add(trial_id)

    def has(self, trial_id: str) -> bool:
        """Whether it is."""
        return trial_id in self._trials


def start_stops() -> Any:
    """The actor, found by its name as long as this handle is held."""
    return ray.remote(Stops).options(name=_NAME, num_cpus=0).remote()


def is_to_stop(trial_id: str) -> bool:
    """Whether the scheduler wants this trial to end."""
    return bool(ray.get(ray.get_actor(_NAME).has.remote(trial_id)))


def tell_to_stop(trial_id: str) -> None:
    """This trial is to end when it next asks."""
    ray.get(ray.get_actor(_NAME).add.remote(trial_id))


class GentleASHA(ASHAScheduler):
    """ASHA that tells trials to stop instead of ending them."""

    told: frozenset[str] = frozenset()
    """Trials that were told."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray Tune's, after each report."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision != self.STOP:
            return decision
        tell_to_stop(trial.trial_id)
        self.told |= {trial.trial_id}
        return str(self.CONTINUE)
