"""What a search records of its trials while they run, and when it is interrupted."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from maag.checkpoint import BEST
from maag.config import codec
from maag.config.schema import Config
from tune.recorder import Recorder, SearchPlan
from tune.results import TrialResult
from tune.schedule import SCHEDULE
from tune.space import SPACE, within
from tune.trial import TrialPlan


def plan_of(out: Path, max_minutes: float | None = None) -> tuple[SearchPlan, TrialPlan]:
    search = SearchPlan(
        out=out, trials=2, at_once=2, epochs=4, validations=4, algorithm="tpe", max_minutes=max_minutes,
        gpus_per_trial=0, address=None, storage=None, seed=0,
    )  # fmt: skip
    trial = TrialPlan(
        base={}, data_dir="", scribbles=(), data_digest="", cache_root="", split={}, trials_dir=str(out),
        device="cpu", threads=1, exchange=False,
    )  # fmt: skip
    return search, trial


def trial_of(name: str, status: str) -> Any:
    return SimpleNamespace(trial_id=name, status=status, last_result={}, config={"optim.lr": 1e-3})


def test_every_change_of_a_trial_is_reported(tmp_path: Path) -> None:
    reports: list[tuple[TrialResult, ...]] = []
    recorder = Recorder(*plan_of(tmp_path), lambda now: reports.append(tuple(now)))
    trial = trial_of("a", Trial.RUNNING)
    recorder.on_step_end(0, [trial])
    recorder.on_step_end(1, [trial])
    assert len(reports) == 1
    trial.last_result = {"epoch": 2, "objective": 0.5, "best_dice": 0.6, "mean_dice": 0.5, "seconds": 1.0}
    recorder.on_step_end(2, [trial])
    assert [(now[0].status, now[0].epoch) for now in reports] == [("running", 0), ("running", 2)]
    assert "a,running,2,0.5" in (tmp_path / "trials.csv").read_text()


def test_interrupted_trial_is_recorded_as_waiting_not_stopped(tmp_path: Path) -> None:
    recorder = Recorder(*plan_of(tmp_path), lambda now: None)
    poor, cut, last = (
        trial_of("poor", Trial.TERMINATED),
        trial_of("cut", Trial.RUNNING),
        trial_of("last", Trial.RUNNING),
    )
    recorder.on_step_end(0, [poor, cut, last])
    cut.status = last.status = Trial.TERMINATED  # as Ray leaves them all
    last.last_result = {"epoch": 4}
    recorder.on_experiment_end([poor, cut, last])
    assert [result.status for result in recorder.results] == ["stopped", "waiting", "done"]


def test_best_trial_is_chosen_among_completed_trials(tmp_path: Path) -> None:
    search, trial = plan_of(tmp_path)
    recorder = Recorder(search, replace(trial, base=codec.to_dict(Config())), lambda now: None)
    trials = []
    for name, epoch, dice in (("young", 1, 0.9), ("old", 4, 0.6), ("older", 4, 0.5)):
        each = trial_of(name, Trial.TERMINATED)
        each.last_result = {"epoch": epoch, "objective": dice, "best_dice": dice, "mean_dice": dice, "seconds": 1.0}
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / BEST).write_text(name)
        (tmp_path / name / SCHEDULE).write_text(f"settings of {name}")
        trials.append(each)
    recorder.on_experiment_end(trials)
    recorder.finish()
    assert (tmp_path / "checkpoints" / BEST).read_text() == "old"
    assert (tmp_path / SCHEDULE).read_text() == "settings of old"


def test_time_limit_interrupts_once(tmp_path: Path) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
    try:
        recorder = Recorder(*plan_of(tmp_path, max_minutes=1e-9), lambda now: None)
        for iteration in range(3):
            recorder.on_step_end(iteration, [trial_of("a", Trial.RUNNING)])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received == [signal.SIGUSR1]


def test_time_limit_is_in_minutes(tmp_path: Path) -> None:
    received: list[float] = []
    moments = [100.0]
    before = signal.signal(signal.SIGUSR1, lambda number, frame: received.append(moments[-1]))
    try:
        recorder = Recorder(*plan_of(tmp_path, max_minutes=2), lambda now: None, clock=lambda: moments[-1])
        for moment in (100.0, 219.0, 221.0):
            moments.append(moment)
            recorder.on_step_end(0, [trial_of("a", Trial.RUNNING)])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received == [221.0]


@pytest.mark.parametrize(("given", "kept"), [(0.27, 0.2), (-0.1, 0.0), (0.1, 0.1)])
def test_changed_settings_stay_within_their_bounds(given: float, kept: float) -> None:
    sample = {"discriminator.label_noise": given, "gates.levels": "[0]", "of.another": 9}
    assert within(sample, SPACE) == {**sample, "discriminator.label_noise": kept}
