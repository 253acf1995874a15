"""A search through the command line, killed and resumed, and searches whose trials fail."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import run as run_here
from maag_subprocess import wait_until
from ray import tune as ray_tune

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.preparing import prepare
from maag.data.catalog import write_phantom
from maag.data.splits import Split
from maag.errors import TrainingError
from tune.recorder import Algorithm, SearchPlan
from tune.results import TrialResult
from tune.schedule import read_schedule
from tune.search import search
from tune.staged_state import newest_state
from tune.trial import TrialPlan

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

EPOCHS, TRIALS = 6, 4


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open() as file:
        return {row["trial"]: row for row in csv.DictReader(file)}


def epochs_of(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()] if path.exists() else []


def rungs_in(experiment: Path) -> dict[float, dict[str, float]]:
    """The rungs that trials are compared with, as Ray saved them last."""
    newest = max(experiment.glob("callback-states-*.pkl"), key=lambda path: path.name)
    (bracket,) = pickle.loads(newest.read_bytes())[1]["brackets"]
    return bracket


def plans_of(
    base: Config, data: Path, split: Split, folder: Path, *, algorithm: Algorithm, **search: Any
) -> tuple[SearchPlan, TrialPlan]:
    epochs, cache = base.optim.epochs, folder / "cache"
    plan = SearchPlan(
        out=folder / "search", epochs=epochs, validations=epochs, algorithm=algorithm, max_minutes=None,
        gpus_per_trial=0, address=None, storage=None, seed=0, **search,
    )  # fmt: skip
    trial = TrialPlan(
        base=codec.to_dict(base), data_dir=str(data), scribbles=(), data_digest=prepare(data, base.data, cache).digest,
        cache_root=str(cache), split=split.to_dict(), trials_dir=str(plan.out / "trials"), device="cpu", threads=1,
        exchange=algorithm == "pbt",
    )  # fmt: skip
    return plan, trial


def has_saved_a_finished_trial(search: Path) -> bool:
    """Whether a trial has ended, and Ray has saved that and its rungs, which it does just after."""
    if not any(row["status"] in ("done", "stopped") for row in rows_of(search / "trials.csv").values()):
        return False
    newest = newest_state(search / "ray")
    if newest is None or "TERMINATED" not in newest.read_text():
        return False
    try:
        return any(rungs_in(search / "ray").values())
    except (ValueError, EOFError, pickle.UnpicklingError):  # not there yet, or being written
        return False


def is_trial(process: psutil.Process) -> bool:
    return process.name().startswith("ray::ImplicitF")


def test_killed_search_resumes_and_yields_a_model(
    tmp_path: Path, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "search"
    write_phantom("lvsc", tmp_path / "lvsc", 8, seed=3)
    words = ["tune", "--dataset", "lvsc", "--data", tmp_path / "lvsc", "--out", out]
    settings = ["--trials", TRIALS, "--epochs", EPOCHS, "--concurrency", 2, "--search", "random", *tiny_options]
    command = [sys.executable, "-m", "maag", *map(str, (*words, *settings))]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        wait_until(lambda: process.poll() is not None or has_saved_a_finished_trial(out), 240)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    before = rows_of(out / "trials.csv")
    ended = {name for name, row in before.items() if row["status"] in ("done", "stopped")}
    epochs_before = {name: epochs_of(out / "trials" / name) for name in before}
    assert len(ended) < TRIALS
    measured_against = rungs_in(out / "ray")
    assert any(measured_against.values())

    assert run_here(*words, "--resume", "--json") == 0
    printed = capsys.readouterr().out
    after = rows_of(out / "trials.csv")
    assert len(after) == TRIALS
    assert {row["status"] for row in after.values()} <= {"done", "stopped"}
    assert all(values.items() <= rungs_in(out / "ray")[reached].items() for reached, values in measured_against.items())
    for name in ended:
        assert epochs_of(out / "trials" / name) == epochs_before[name]
    for name, row in after.items():
        epochs = epochs_of(out / "trials" / name)
        assert epochs == list(range(1, len(epochs) + 1))
        assert row["status"] == "stopped" or epochs[-1] == EPOCHS
        assert float(row["best_dice"]) >= float(row["objective"])

    summary = json.loads(printed.splitlines()[-1])
    assert summary["trials"] == TRIALS
    objectives = {name: float(row["objective"]) for name, row in after.items()}
    finished = [objectives[name] for name, row in after.items() if row["status"] == "done"]
    assert summary["objective"] == pytest.approx(max(finished or objectives.values()))
    assert (out / "search.png").stat().st_size > 1000
    config = codec.from_document(json.loads((out / "best.json").read_text()), "best.json")
    assert codec.digest(config) == summary["config_digest"]
    assert run_here("export", out, "--out", tmp_path / "model") == 0


def test_failed_trials_are_recorded_and_the_search_continues(
    phantom_dir: Path, tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    good = tiny_config.optim.lr
    plan, trial = plans_of(
        tiny_config,
        phantom_dir,
        split,
        tmp_path,
        trials=3,
        at_once=1,
        algorithm="random",
        retries=1,
        space={"optim.lr": ray_tune.choice([good, 1e30])},
    )
    reports: list[tuple[TrialResult, ...]] = []
    results = search(plan, trial, lambda now: reports.append(tuple(now)), resume=False)
    assert results[0].sample["optim.lr"] == good  # the first trial has the current settings
    by_lr: dict[Any, TrialResult] = {result.sample["optim.lr"]: result for result in results}
    assert by_lr[good].status == "done"
    assert by_lr[1e30].status == "failed"
    assert "loss became nan" in by_lr[1e30].error
    assert reports[-1] == results
    assert rows_of(tmp_path / "search" / "trials.csv")[by_lr[1e30].trial]["error"] == by_lr[1e30].error
    best = codec.from_document(json.loads((tmp_path / "search" / "best.json").read_text()), "best.json")
    assert best.optim.lr == good


def test_killed_trial_resumes_from_its_own_checkpoint(
    phantom_dir: Path, tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    base = codec.override(tiny_config, {"optim.epochs": 4})
    plan, trial = plans_of(base, phantom_dir, split, tmp_path, trials=1, at_once=1, algorithm="random")
    killed: list[int] = []

    def kill_once(now: Sequence[TrialResult]) -> None:
        if now[0].epoch >= 1 and not killed:
            (process,) = [each for each in psutil.Process().children(recursive=True) if is_trial(each)]
            killed.append(process.pid)
            process.kill()

    (result,) = search(plan, trial, kill_once, resume=False)
    assert killed
    assert (result.status, result.error) == ("done", "")
    assert epochs_of(Path(trial.trials_dir) / result.trial) == [1, 2, 3, 4]


def test_resume_retries_trials_that_failed_on_their_node(
    phantom_dir: Path, tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    plan, trial = plans_of(tiny_config, phantom_dir, split, tmp_path, trials=2, at_once=1, algorithm="tpe", retries=0)
    at_ctrl_c = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingError, match=r"all 2 trials failed, the first with: .* has other data"):
        search(plan, replace(trial, data_digest="other"), lambda now: None, resume=False)
    assert signal.getsignal(signal.SIGINT) is at_ctrl_c
    failed = rows_of(plan.out / "trials.csv")
    results = search(plan, trial, lambda now: None, resume=True)
    assert {result.trial for result in results} == set(failed)
    assert {result.status for result in results} == {"done"}


def test_population_based_training_passes_states_between_trials(
    phantom_dir: Path, tiny_config: Config, split: Split, tmp_path: Path
) -> None:
    base = codec.override(tiny_config, {"optim.epochs": 3})
    plan, trial = plans_of(base, phantom_dir, split, tmp_path, trials=2, at_once=2, algorithm="pbt")
    results = search(plan, trial, lambda now: None, resume=False)
    assert [(result.status, result.error) for result in results] == [("done", "")] * 2
    assert {result.epoch for result in results} == {3}
    for result in results:
        run = Path(trial.trials_dir) / result.trial
        epochs = epochs_of(run)
        assert epochs == sorted(set(epochs))
        assert epochs[-1] == 3
        config = codec.from_document(json.loads((run / "config.json").read_text()), "config.json")
        assert config.loss.adversarial == result.sample["loss.adversarial"]
        recipe = read_schedule(run / "schedule.jsonl")
        assert recipe[0]["from_epoch"] == 1
        assert recipe[-1]["settings"] == result.sample
    assert read_schedule(plan.out / "schedule.jsonl")
