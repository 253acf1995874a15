"""Stopping of trials that train on several workers.

Ray Tune stops a trial by ending its process, and the resources that Ray Train reserved for its workers would stay
reserved. So such a trial is told to stop, and ends itself.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.tune.schedulers import ASHAScheduler

_NAME = "maag-stops"


class Stops:
    """An actor with the set of trials that must stop."""

    def __init__(self) -> None:
        self._trials: set[str] = set()

    def add(self, trial_id: str) -> None:
        """Add a trial."""
        self._trials.add(trial_id)

    def has(self, trial_id: str) -> bool:
        """Whether a trial must stop."""
        return trial_id in self._trials


def start_stops() -> Any:
    """Start the actor, which is found by its name as long as this handle is held."""
    return ray.remote(Stops).options(name=_NAME, num_cpus=0).remote()


def is_to_stop(trial_id: str) -> bool:
    """Whether the scheduler has stopped this trial."""
    return bool(ray.get(ray.get_actor(_NAME).has.remote(trial_id)))


def tell_to_stop(trial_id: str) -> None:
    """Have this trial end itself at its next report."""
    ray.get(ray.get_actor(_NAME).add.remote(trial_id))


class GentleASHA(ASHAScheduler):
    """ASHA that tells trials to stop instead of ending them."""

    told_to_stop: frozenset[str] = frozenset()
    """Trials that were told to stop."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Ray Tune after each report."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision != self.STOP:
            return decision
        tell_to_stop(trial.trial_id)
        self.told_to_stop |= {trial.trial_id}
        return str(self.CONTINUE)
