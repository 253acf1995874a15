"""Population based training that goes on after a kill where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from ray.tune.schedulers import PopulationBasedTraining


class Member(TypedDict):
    """What the population knows of a trial."""

    score: float
    """Its objective when it was last compared."""
    trained: int
    """The epoch it had done then."""
    compared: int
    """The epoch from which on it is an interval until the next time."""


class Population(PopulationBasedTraining):
    """Ray's, which would forget all scores, and then compare a few trials at odd moments until all had reported."""

    _expected: Mapping[str, Member] = {}

    def members(self) -> dict[str, Member]:
        """By trial; those that have not been compared yet are left out."""
        return {
            trial.trial_id: Member(
                score=state.last_score, trained=state.last_train_time, compared=state.last_perturbation_time
            )
            for trial, state in self._trial_state.items()
            if state.last_score is not None
        }

    def expect(self, members: Mapping[str, Member]) -> None:
        """What is known of trials that will be added."""
        self._expected = members

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Ray Tune's, for each trial, new or going on."""
        super().on_trial_add(tune_controller, trial)
        member = self._expected.get(trial.trial_id)
        if member is None:
            return
        state = self._trial_state[trial]
        state.last_score = member["score"]
        state.last_train_time = member["trained"]
        state.last_perturbation_time = member["compared"]
        # From where it goes on itself, another may go on.
        state.last_checkpoint, state.last_result = trial.checkpoint, trial.last_result
