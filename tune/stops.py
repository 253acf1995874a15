"""Successive halving of trials that end themselves."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler

from tune.stop_requests import tell_to_stop


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
