"""The set of trials that must stop, of those that train on several workers.

Ray Tune stops a trial by ending its process, and the resources that Ray Train reserved for its workers would stay
reserved. So such a trial is told to stop, and ends itself; see `stops`. This module does not import Ray Tune, which
the actor's process does not need.
"""

from __future__ import annotations

from typing import Any

import ray

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
