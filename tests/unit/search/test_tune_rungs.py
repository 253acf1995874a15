"""The scheduler's rungs, restored after a kill."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from tune.rungs import Rungs
from tune.stops import GentleASHA


def report(scheduler: ASHAScheduler, name: str, objective: float) -> str:
    trial: Any = SimpleNamespace(trial_id=name)
    scheduler.on_trial_add(None, trial)
    return str(scheduler.on_trial_result(None, trial, {"epoch": 3, "objective": objective}))


def asha() -> ASHAScheduler:
    return ASHAScheduler(time_attr="epoch", metric="objective", mode="max", max_t=9, grace_period=3, reduction_factor=3)


def test_resumed_scheduler_stops_a_poor_trial_by_results_before_the_kill() -> None:
    killed = asha()
    for name, objective in (("a", 0.7), ("b", 0.8), ("c", 0.9)):
        report(killed, name, objective)
    state = Rungs(killed).get_state()
    assert state is not None

    assert report(asha(), "poor", 0.1) == ASHAScheduler.CONTINUE  # nothing to measure it against
    resumed = asha()
    Rungs(resumed).set_state(state)
    assert report(resumed, "poor", 0.1) == ASHAScheduler.STOP
    assert report(resumed, "good", 0.95) == ASHAScheduler.CONTINUE


def test_other_schedulers_have_no_rungs() -> None:
    assert Rungs(FIFOScheduler()).get_state() is None


def test_stopped_trials_are_told_to_stop_again_after_each_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr("tune.rungs.tell_to_stop", stopped.append)  # an actor of a cluster
    state = {**(Rungs(gentle()).get_state() or {}), "told": ["poor"]}
    for _ in range(2):
        resumed = gentle()
        Rungs(resumed).set_state(state)
        state = Rungs(resumed).get_state() or {}
    assert stopped == ["poor", "poor"]


def gentle() -> GentleASHA:
    return GentleASHA(time_attr="epoch", metric="objective", mode="max", max_t=9, grace_period=3, reduction_factor=3)
