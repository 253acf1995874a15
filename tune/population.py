"""Population based training that resumes exactly after a kill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from ray.tune.schedulers import PopulationBasedTraining


class Member(TypedDict):
    """The scheduler's state of a trial."""

    score: float
    """Objective at the last comparison."""
    trained: int
    """Epochs done at the last comparison."""
    compared: int
    """Epoch from which the interval to the next comparison counts."""


class Population(PopulationBasedTraining):
    """Ray's scheduler, whose scores survive a resume.

    Ray's own forgets them, and would then compare only a few trials until all had reported.
    """

    _expected: Mapping[str, Member] = {}

    def members(self) -> dict[str, Member]:
        """State by trial; trials without a comparison so far are left out."""
        return {
            trial.trial_id: Member(
                score=state.last_score, trained=state.last_train_time, compared=state.last_perturbation_time
            )
            for trial, state in self._trial_state.items()
            if state.last_score is not None
        }

    def expect(self, members: Mapping[str, Member]) -> None:
        """Set the state of trials that will be added."""
        self._expected = members

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Ray Tune for each trial, new or resumed."""
        super().on_trial_add(tune_controller, trial)
        member = self._expected.get(trial.trial_id)
        if member is None:
            return
        state = self._trial_state[trial]
        state.last_score = member["score"]
        state.last_train_time = member["trained"]
        state.last_perturbation_time = member["compared"]
        # Other trials may continue from the checkpoint from which this one resumes.
        state.last_checkpoint, state.last_result = trial.checkpoint, trial.last_result
