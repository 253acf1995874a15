"""After a kill, Ray may restore trials and a searcher that were saved at different times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray import tune as ray_tune
from ray.tune import register_trainable
from ray.tune.experiment import Experiment, Trial
from ray.tune.search import SearchAlgorithm
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.serialization import TuneFunctionEncoder

from tune.searchers import ResumableOptuna, ResumableVariants

pytestmark = pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")  # in memory all are taken

SPACE = {
    "optim.lr": ray_tune.loguniform(1e-4, 1e-2),
    "gates.levels": ray_tune.choice([[], [1, 2, 3], [0, 1, 2, 3]]),
    "gates.residual": ray_tune.choice([True, False]),
}
SAMPLES, AT_ONCE = 4, 2


def searcher_of(algorithm: str, folder: Path) -> SearchAlgorithm:
    register_trainable("nothing", lambda config: None)
    searcher: SearchAlgorithm
    if algorithm == "tpe":
        searcher = ResumableOptuna(OptunaSearch(metric="objective", mode="max", seed=3), max_concurrent=AT_ONCE)
        searcher.set_search_properties("objective", "max", SPACE)
    else:
        searcher = ResumableVariants(max_concurrent=AT_ONCE, random_state=3)
    space = SPACE if algorithm == "random" else {}
    experiment = Experiment("search", run="nothing", num_samples=SAMPLES, config=space, storage_path=str(folder))
    searcher.add_configurations([experiment])
    return searcher


def finish(trial: Trial, searcher: SearchAlgorithm | None, objective: float) -> None:
    result = {"objective": objective, "training_iteration": 1, "epoch": 1}
    trial.run_metadata.last_result = result
    trial.set_status(Trial.TERMINATED)
    if searcher is not None:
        searcher.on_trial_complete(trial.trial_id, result)


def write_trials(folder: Path, trials: list[Trial], moment: str = "2026") -> None:
    for trial in trials:
        trial.create_placement_group_factory()
    states = [trial.get_json_state() for trial in trials]
    (folder / f"experiment_state-{moment}.json").write_text(json.dumps({"trial_data": states}, cls=TuneFunctionEncoder))


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_searcher_older_than_the_trials_catches_up(algorithm: str, tmp_path: Path) -> None:
    killed = searcher_of(algorithm, tmp_path)
    first = killed.next_trial()
    killed.save_to_dir(str(tmp_path), "2026")
    second = killed.next_trial()
    assert killed.next_trial() is None
    finish(first, killed, 0.5)
    third = killed.next_trial()
    write_trials(tmp_path, [first, second, third])

    resumed = searcher_of(algorithm, tmp_path)
    resumed.restore_from_dir(str(tmp_path))
    assert resumed.next_trial() is None, "two are running"
    for trial in (second, third):
        resumed.on_trial_result(trial.trial_id, {"objective": 0.4, "training_iteration": 1})
        resumed.on_trial_complete(trial.trial_id, {"objective": 0.6, "training_iteration": 2})
    last = resumed.next_trial()
    assert last.trial_id not in {first.trial_id, second.trial_id, third.trial_id}
    assert resumed.next_trial() is None
    resumed.on_trial_complete(last.trial_id, {"objective": 0.6, "training_iteration": 2})
    assert resumed.next_trial() is None, "all samples are taken"
    if isinstance(resumed, ResumableOptuna):
        known: list[Any] = resumed._optuna._ot_study.trials
        assert [each.value for each in known] == [0.5, 0.6, 0.6, 0.6]
        assert {each.params["optim.lr"] for each in known} == {
            trial.config["optim.lr"] for trial in (first, second, third, last)
        }


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_finished_trial_frees_its_slot_and_is_learnt_from_once(algorithm: str, tmp_path: Path) -> None:
    killed = searcher_of(algorithm, tmp_path)
    first, second = killed.next_trial(), killed.next_trial()
    write_trials(tmp_path, [first], moment="2025")
    finish(first, killed, 0.5)
    killed.save_to_dir(str(tmp_path), "2026")
    write_trials(tmp_path, [first, second])

    resumed = searcher_of(algorithm, tmp_path)
    resumed.restore_from_dir(str(tmp_path))
    third = resumed.next_trial()
    assert third.trial_id not in {first.trial_id, second.trial_id}
    assert resumed.next_trial() is None, "two are running"
    if isinstance(resumed, ResumableOptuna):
        known: list[Any] = resumed._optuna._ot_study.trials
        assert [each.value for each in known] == [0.5, None, None]


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_failed_trial_is_learnt_from_when_retried(algorithm: str, tmp_path: Path) -> None:
    killed = searcher_of(algorithm, tmp_path)
    failed = killed.next_trial()
    failed.set_status(Trial.ERROR)
    killed.on_trial_complete(failed.trial_id, error=True)
    others = [killed.next_trial(), killed.next_trial()]
    killed.save_to_dir(str(tmp_path), "2026")
    write_trials(tmp_path, [failed, *others])

    resumed = searcher_of(algorithm, tmp_path)
    resumed.restore_from_dir(str(tmp_path))
    first, *later = (failed, *others)
    resumed.on_trial_complete(first.trial_id, {"objective": 0.7, "training_iteration": 2})
    assert resumed.next_trial() is None, "two are running"
    for trial in later:
        resumed.on_trial_complete(trial.trial_id, {"objective": 0.6, "training_iteration": 2})
    assert resumed.next_trial() is not None
    if isinstance(resumed, ResumableOptuna):
        known: list[Any] = [each for each in resumed._optuna._ot_study.trials if each.value is not None]
        assert [each.value for each in known] == [0.6, 0.6, 0.7]
        assert known[-1].params["optim.lr"] == failed.config["optim.lr"]
