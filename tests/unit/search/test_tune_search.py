"""How a search is set up: its direction, bounds and starting point; Ray is not started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from ray import tune as ray_tune
from ray.tune.schedulers import TrialScheduler

from maag.config import codec
from maag.config.schema import Config
from tune.recorder import OBJECTIVE, Algorithm, Recorder, SearchPlan
from tune.search import _new_tuner
from tune.searchers import ResumableOptuna
from tune.space import SPACE, starting_point
from tune.trial import TrialPlan

EPOCHS = 9


def configured(out: Path, algorithm: Algorithm) -> ray_tune.TuneConfig:
    """Ray Tune's configuration, with a searcher that has its space."""
    plan = SearchPlan(
        out=out, trials=8, at_once=2, epochs=EPOCHS, validations=9, algorithm=algorithm, max_minutes=None,
        gpus_per_trial=0, address=None, storage=None, seed=3,
    )  # fmt: skip
    trial = TrialPlan(
        base=codec.to_dict(Config()), data_dir="", scribbles=(), data_digest="", cache_root="", split={},
        trials_dir=str(out), device="cpu", threads=1, exchange=algorithm == "pbt",
    )  # fmt: skip
    tuner = _new_tuner(plan, trial, Recorder(plan, trial, lambda now: None))
    assert tuner._local_tuner is not None
    config = tuner._local_tuner._tune_config
    assert config.search_alg is not None
    assert config.scheduler is not None
    config.search_alg.set_search_properties(config.metric, config.mode, plan.space)
    config.scheduler.set_search_properties(config.metric, config.mode)
    return config


def decisions(scheduler: TrialScheduler, epoch: int, objectives: dict[str, float]) -> dict[str, str]:
    """The scheduler's decisions on trials that report one after the other."""
    controller: Any = None
    found = {}
    for name, objective in objectives.items():
        trial: Any = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(controller, trial)
        found[name] = scheduler.on_trial_result(controller, trial, {"epoch": epoch, OBJECTIVE: objective})
    return found


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_poor_trials_are_stopped_and_others_run_to_completion(tmp_path: Path, algorithm: Algorithm) -> None:
    scheduler = configured(tmp_path, algorithm).scheduler
    assert scheduler is not None
    first_rung = EPOCHS // 3
    assert decisions(scheduler, first_rung - 1, {"early": 0.1}) == {"early": "CONTINUE"}
    found = decisions(scheduler, first_rung, {"good": 0.8, "best": 0.9, "poor": 0.2})
    assert (found["best"], found["poor"]) == ("CONTINUE", "STOP")
    assert decisions(scheduler, EPOCHS - 1, {"last": 0.95}) == {"last": "CONTINUE"}
    assert decisions(scheduler, EPOCHS, {"done": 0.95}) == {"done": "STOP"}


def test_tpe_maximises_and_starts_with_the_current_settings(tmp_path: Path) -> None:
    searcher = configured(tmp_path, "tpe").search_alg
    assert isinstance(searcher, ResumableOptuna)
    assert searcher.searcher.suggest("first") == starting_point(Config(), SPACE)
    study = searcher._optuna._ot_study
    assert study is not None
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE


def test_pbt_maximises_and_stays_within_the_search_space(tmp_path: Path) -> None:
    config = configured(tmp_path, "pbt")
    assert (config.metric, config.mode) == (OBJECTIVE, "max")
    scheduler: Any = config.scheduler
    sample = {"discriminator.label_noise": 0.27, "optim.lr": 1e-9}
    assert scheduler._custom_explore_fn(sample) == {"discriminator.label_noise": 0.2, "optim.lr": 5e-5}
