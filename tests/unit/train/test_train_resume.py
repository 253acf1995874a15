"""A resumed run equals an uninterrupted one, and only a matching run is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from short_runs import ALL_FEATURES, CPU, run_training

from maag import checkpoint
from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.splits import Split
from maag.errors import CheckpointError, TrainingError
from maag.train.folder import RunFolder

pytestmark = pytest.mark.slow


def history(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("seconds", "steps_per_second")} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, ALL_FEATURES], ids=["MAAG", "everything"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_config: Config, prepared: PreparedData, split: Split, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = codec.override(tiny_config, {"optim.epochs": 3, "optim.batch_size": 2, **changes})
    whole = run_training(config, prepared, split, tmp_path / "whole")
    assert whole.ending == "done"
    per_epoch = whole.steps // 3
    # Losses are read every ten steps and at each epoch's end: once inside an epoch, once at its end.
    stopped = run_training(config, prepared, split, tmp_path / "parts", stop_at=1)
    assert stopped.ending == "interrupted"
    assert 0 < stopped.steps < per_epoch
    assert not (tmp_path / "parts" / "checkpoints" / "final.safetensors").exists()
    run_training(config, prepared, split, tmp_path / "parts", stop_at=per_epoch * 2, resume=True)
    resumed = run_training(config, prepared, split, tmp_path / "parts", resume=True)
    assert resumed.steps == whole.steps
    assert history(tmp_path / "parts") == history(tmp_path / "whole")
    _, one = checkpoint.load_state(tmp_path / "whole" / "checkpoints" / "last.pt", CPU)
    _, other = checkpoint.load_state(tmp_path / "parts" / "checkpoints" / "last.pt", CPU)
    parts = {"segmentor", "discriminator", "segmentor_optimizer", "discriminator_optimizer"}
    assert set(one["parts"]) == (parts | {"teacher", "areas"} if changes else parts)
    assert_same(one["parts"], other["parts"])


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def test_a_nan_loss_ends_the_run_and_keeps_the_checkpoint(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_training(short_config, prepared, split, tmp_path / "run", stop_at=1)
    before = (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes()
    broken = replace(prepared, images=np.full_like(prepared.images, np.nan))
    with pytest.raises(TrainingError, match=r"the supervised loss became nan .* the last good checkpoint is kept"):
        run_training(short_config, broken, split, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes() == before


def test_resuming_with_other_settings_or_data_is_refused(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_training(short_config, prepared, split, tmp_path / "run", stop_at=1)
    with pytest.raises(CheckpointError, match="the settings have changed"):
        run_training(codec.override(short_config, {"optim.lr": 1e-3}), prepared, split, tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match="trained on other data"):
        run_training(short_config, replace(prepared, digest="other"), split, tmp_path / "run", resume=True)


def test_resuming_with_another_split_is_refused(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_training(short_config, prepared, split, tmp_path / "run", stop_at=1)
    exchanged = replace(split, scribbled=(*split.scribbled[1:], *split.val), val=split.scribbled[:1])
    message = rf"trained on split {split.digest}, not {exchanged.digest}, .*; restore its split\.json, or"
    with pytest.raises(CheckpointError, match=message):
        run_training(short_config, prepared, exchanged, tmp_path / "run", resume=True)


def test_a_run_of_an_earlier_version_with_file_time_digests_resumes(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_training(short_config, replace(prepared, digest="08f8cbb0784f61f8"), split, tmp_path / "run", stop_at=1)
    run_training(short_config, prepared, split, tmp_path / "run", resume=True)


def test_damaged_checkpoints_are_named(
    short_config: Config, prepared: PreparedData, split: Split, tmp_path: Path
) -> None:
    run_training(short_config, prepared, split, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    for path, load in (
        (run.last, lambda: checkpoint.load_state(run.last, CPU)),
        (run.best, lambda: checkpoint.load_segmentor(run.best)),
    ):
        load()
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CheckpointError, match=path.name):
            load()
