"""Search algorithms that resume after a kill, whatever part of Ray's state it left behind.

Ray saves first the trials, then the searcher, and copies both file by file. So a restored searcher may not know the
last trials, or that they ended; it would fail on them, sample them twice, or wait for them.
"""

from __future__ import annotations

import json
from pathlib import Path

from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.utils import flatten_dict

from tune.staged_state import newest_state


class ResumableOptuna(SearchGenerator):
    """Optuna's TPE sampler with limited concurrency."""

    def __init__(self, optuna: OptunaSearch, max_concurrent: int) -> None:
        super().__init__(ConcurrencyLimiter(optuna, max_concurrent=max_concurrent))
        self._optuna = optuna

    def restore_from_dir(self, dirpath: str) -> None:
        """Restore the saved state, and update the searcher with what it does not know of the trials."""
        super().restore_from_dir(dirpath)
        trials = _trials_in(Path(dirpath))
        self._counter = max(self._counter, len(trials))
        for trial in trials:
            if trial.trial_id not in self._optuna._ot_trials or (
                # It failed and is retried; the sampler should learn from its result.
                _goes_on(trial) and trial.trial_id in self._optuna._completed_trials
            ):
                self._take(trial)
            if not _goes_on(trial):
                self.on_trial_complete(trial.trial_id, flatten_dict(trial.last_result))

    def _take(self, trial: Trial) -> None:
        """Register a trial with the searcher, even above the limit of concurrency."""
        study, limiter = self._optuna._ot_study, self.searcher
        assert study is not None
        assert isinstance(limiter, ConcurrencyLimiter)
        self._optuna._ot_trials.pop(trial.trial_id, None)
        self._optuna._completed_trials.discard(trial.trial_id)
        study.enqueue_trial(dict(trial.evaluated_params))
        self._optuna.suggest(trial.trial_id)
        limiter.live_trials.add(trial.trial_id)
        limiter.num_unfinished_live_trials += 1


class ResumableVariants(BasicVariantGenerator):
    """Random sampling with limited concurrency."""

    def restore_from_dir(self, dirpath: str) -> None:
        """Restore the saved state, and skip the samples that are trials already."""
        super().restore_from_dir(dirpath)
        trials = _trials_in(Path(dirpath))
        known = {trial.trial_id for trial in trials}
        self._live_trials = {trial.trial_id for trial in trials if _goes_on(trial)}
        for iterator in self._iterators:
            while f"{iterator.uuid_prefix}{iterator.counter:05d}" in known:
                next(iterator)


def _goes_on(trial: Trial) -> bool:
    """Whether a trial will run again, as failed ones do."""
    return bool(trial.status != Trial.TERMINATED)


def _trials_in(folder: Path) -> list[Trial]:
    """The trials of Ray's newest saved state, with their metadata."""
    newest = newest_state(folder)
    if newest is None:
        return []
    trials = []
    for state, metadata in json.loads(newest.read_text())["trial_data"]:
        trial = Trial.from_json_state(state)
        trial.restore_run_metadata(metadata)
        trials.append(trial)
    return trials
