"""How whole short runs end, on synthetic patients: no gain, no time, no memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from short_runs import CPU, StopAt, run_training

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.splits import Split
from maag.errors import DeviceMemoryError
from maag.train.fit import fit
from maag.train.folder import create_run
from maag.train.reports import Listeners, StepReport
from maag.train.stopping import StopRequest

pytestmark = pytest.mark.slow


def test_a_run_without_gains_stops_early(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    changes = {"optim.epochs": 50, "train.patience": 2, "train.min_delta": 1.0}
    outcome = run_training(codec.override(short_config, changes), prepared, split, tmp_path / "run")
    assert outcome.ending == "early"
    assert outcome.epochs_done == 3  # the first counts as a gain over nothing
    assert outcome.best_epoch == 1
    resumed = run_training(codec.override(short_config, changes), prepared, split, tmp_path / "run", resume=True)
    assert (resumed.ending, resumed.steps) == ("early", outcome.steps)
    assert resumed.steps_per_second == outcome.steps_per_second > 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps_per_second"] == outcome.steps_per_second
    for damaged in ("{", "[]"):
        (tmp_path / "run" / "result.json").write_text(damaged)
        run_training(codec.override(short_config, changes), prepared, split, tmp_path / "run", resume=True)
        assert json.loads((tmp_path / "run" / "result.json").read_text())["ending"] == "early"


def test_a_run_interrupted_before_validation_has_no_best_dice(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    config = codec.override(short_config, {"optim.epochs": 8, "train.validate_every": 4})
    outcome = run_training(config, prepared, split, tmp_path / "run", stop_at=1)
    assert (outcome.ending, outcome.best_dice, outcome.best_epoch) == ("interrupted", None, None)


def test_validations_at_a_time_limit_do_not_use_up_patience(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    changes = {"optim.epochs": 50, "optim.batch_size": 8, "train.patience": 2, "train.min_delta": 1.0}
    config = codec.override(short_config, changes)
    run = create_run(tmp_path / "run", config, split)
    for step in range(1, 4):
        stop = StopRequest(max_minutes=1e-9)
        outcome = fit(config, prepared, split, run, device=CPU, listener=Listeners(), stop=stop, resume=step > 1)
        assert (outcome.ending, outcome.steps) == ("time", step)
    assert outcome.epochs_done < 1
    assert run_training(config, prepared, split, tmp_path / "run", resume=True).epochs_done == 2


def test_a_run_out_of_time_ends_with_a_validation(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    stop = StopRequest(max_minutes=1e-9)
    run = create_run(tmp_path / "run", short_config, split)
    outcome = fit(short_config, prepared, split, run, device=CPU, listener=StopAt(stop, 10**9), stop=stop, resume=False)
    assert outcome.ending == "time"
    assert outcome.steps == 1
    assert outcome.final_dice is not None
    assert run.final.is_file()


class OutOfMemory(StopAt):
    """A listener that raises as if a GPU's memory were full."""

    def on_step(self, report: StepReport) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 1.00 MiB "
            "is free. Including non-PyTorch memory, this process has 7.70 GiB memory in use. See documentation."
        )


def test_out_of_memory_errors_name_the_settings_to_lower(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run, stop = create_run(tmp_path / "run", short_config, split), StopRequest()
    sentence = (
        r"optim\.batch_size=12 and data\.size_px=\[32,32\] \(CUDA out of memory\. Tried to allocate 20\.00 MiB\. "
        r"GPU 0 has a total capacity of 7\.79 GiB of which 1\.00 MiB is free\); lower either, or end other work"
    )
    with pytest.raises(DeviceMemoryError, match=sentence):
        fit(short_config, prepared, split, run, device=CPU, listener=OutOfMemory(stop, 0), stop=stop, resume=False)


def test_peak_memory_excludes_earlier_runs_in_the_process(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def reset(device: torch.device) -> None:
        calls.append(f"reset {device}")
        raise InterruptedError  # there is no GPU to go on with

    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    run, stop, gpu = create_run(tmp_path / "run", short_config, split), StopRequest(), torch.device("cuda", 1)
    with pytest.raises(InterruptedError):
        fit(short_config, prepared, split, run, device=gpu, listener=Listeners(), stop=stop, resume=False)
    assert calls == ["init", "reset cuda:1"]
