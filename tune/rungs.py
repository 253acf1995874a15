"""Saves the scheduler's state for a resume: Ray saves its trials and searchers, but no schedulers."""

from __future__ import annotations

from typing import Any

from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from tune.population import Population
from tune.stop_requests import tell_to_stop
from tune.stops import GentleASHA


class Rungs(ray_tune.Callback):
    """A Callback of Ray Tune whose state, which Ray saves together with the trials, is that of `scheduler`."""

    def __init__(self, scheduler: TrialScheduler) -> None:
        self._scheduler = scheduler

    def get_state(self) -> dict[str, Any] | None:
        """For ASHA, the trials' values at each rung by bracket, and the trials that were told to stop; for population
        based training, the members' scores and the epochs of their last comparison.
        """
        if isinstance(self._scheduler, Population):
            return {"members": self._scheduler.members()}
        if not isinstance(self._scheduler, ASHAScheduler):
            return None
        told_to_stop = self._scheduler.told_to_stop if isinstance(self._scheduler, GentleASHA) else frozenset()
        return {
            "brackets": [
                {reached: dict(values) for reached, values in bracket._rungs} for bracket in self._scheduler._brackets
            ],
            "told": sorted(told_to_stop),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Called by Ray on a resume."""
        if isinstance(self._scheduler, Population):
            self._scheduler.expect(state["members"])
        if isinstance(self._scheduler, ASHAScheduler):
            for bracket, saved in zip(self._scheduler._brackets, state["brackets"], strict=True):
                for reached, values in bracket._rungs:
                    values.update(saved[reached])
        if isinstance(self._scheduler, GentleASHA):
            for trial_id in state["told"]:
                tell_to_stop(trial_id)
            self._scheduler.told_to_stop |= set(state["told"])

    def __getstate__(self) -> dict[str, Any]:
        """No state: Ray pickles the scheduler itself."""
        return {}
