"""The objective, the best trial, importances, and the table of trials."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from maag.config import codec
from maag.config.schema import Config
from maag.errors import StorageError
from tune.results import TrialResult, best_of, draw_search, importance, write_best, write_trials
from tune.space import SPACE
from tune.trial import TrialPlan
from tune.trial_reports import objective


def trials(count: int) -> list[TrialResult]:
    """Trials whose objective depends on the learning rate alone."""
    made = []
    for number in range(count):
        sample = {path: distribution.sample() for path, distribution in SPACE.items()}
        sample["optim.lr"] = float(np.geomspace(3e-4, 6e-3, count)[number])
        value = 0.5 + 0.1 * number / count
        made.append(TrialResult(trial=str(number), sample=sample, status="done", epoch=3, epochs=3, objective=value))
    return made


def test_objective_is_the_median_of_the_last_three_dice() -> None:
    assert objective([0.1, 0.2, 0.9, 0.5, 0.4]) == 0.5
    assert objective([0.3]) == 0.3
    assert objective([0.2, 0.4]) == np.mean([0.2, 0.4])


def test_best_trial_is_a_finished_one_if_any() -> None:
    young = TrialResult(trial="young", sample={}, status="stopped", objective=0.9)
    old = TrialResult(trial="old", sample={}, status="done", objective=0.7)
    broken = TrialResult(trial="broken", sample={}, status="failed", objective=0.95)
    assert best_of([young, old, broken]) == old
    assert best_of([young, broken]) == young
    assert best_of([broken]) is None


@pytest.mark.slow
def test_importance_finds_the_decisive_setting_and_is_plotted(tmp_path: Path) -> None:
    shares = importance(trials(40))
    assert max(shares, key=lambda name: shares[name]) == "optim.lr"
    assert np.isclose(sum(shares.values()), 1)
    assert importance(trials(3)) == {}
    draw_search(tmp_path / "search.png", trials(40), shares)
    assert (tmp_path / "search.png").stat().st_size > 1000


def test_importance_is_measured_among_the_good_trials() -> None:
    made = []
    for number, trial in enumerate(trials(60)):
        of_the_best = number >= 54 or number % 2 == 0
        of_the_worst = number < 6 or number % 2 == 0
        made.append(replace(trial, sample={"gates.residual": of_the_best, "loss.dynamic_balance": of_the_worst}))
    shares = importance(made)
    assert shares["gates.residual"] > 0.9
    assert np.isclose(sum(shares.values()), 1)


def test_equally_good_trials_have_no_importance() -> None:
    assert importance([replace(trial, objective=0.0) for trial in trials(8)]) == {}


def test_importance_announces_no_study(caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    try:
        importance(trials(6))
    finally:
        optuna.logging.disable_propagation()
    assert not caplog.messages


def test_missing_weights_of_the_best_trial_are_named_before_anything_is_replaced(tmp_path: Path) -> None:
    plan = TrialPlan(
        base=codec.to_dict(Config()),
        data_dir="",
        scribbles=(),
        data_digest="",
        cache_root="",
        split={},
        trials_dir=str(tmp_path / "trials"),
        device="cpu",
        threads=1,
        exchange=False,
    )
    weights = tmp_path / "trials" / "0" / "checkpoints" / "best.safetensors"
    (best, *_) = trials(1)
    with pytest.raises(StorageError, match=f"cannot read {weights}"):
        write_best(tmp_path / "out", best, plan, weights, tmp_path / "schedule.jsonl")
    assert not (tmp_path / "out").exists()


def test_trials_csv_includes_failed_trials(tmp_path: Path) -> None:
    failed = TrialResult(trial="x", sample={"optim.lr": 1.0}, status="failed", error="the loss became nan", seconds=90)
    write_trials(tmp_path / "trials.csv", [*trials(2), failed])
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["0", "1", "x"]
    assert rows[2]["error"] == "the loss became nan"
    assert rows[2]["gates.levels"] == ""
    assert rows[2]["minutes"] == "1.5"
