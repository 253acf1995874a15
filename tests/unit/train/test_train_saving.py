"""What a run's checkpoints record, and which settings may change when it resumes from one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from maag import checkpoint
from maag.config import codec
from maag.config.schema import Config
from maag.errors import CheckpointError
from maag.train.folder import RunFolder
from maag.train.saving import Checkpoints, Origin
from maag.train.state import Progress, TrainState
from maag.train.validate import ValidationDice

CPU = torch.device("cpu")
ORIGIN = Origin(
    config_digest="c", split_digest="s", data_digest="d", split_scheme="ours", teachers=["t"], orientations=["LPS"]
)
DICE = ValidationDice(per_class={"RV": 0.5, "LV": 0.75}, mean=0.625)


def checkpoints(folder: Path, config: Config, origin: Origin = ORIGIN) -> Checkpoints:
    state = TrainState(config, CPU)
    state.progress = Progress(step=7, best_dice=0.875)
    return Checkpoints(RunFolder(folder), config, state, origin)


def test_saved_weights_record_their_kind_and_origin(tiny_config: Config, tmp_path: Path) -> None:
    run_checkpoints = checkpoints(tmp_path, tiny_config)
    run_checkpoints.save_best(DICE)
    run_checkpoints.save_final(replace(DICE, offsets=(0.0, 0.2, 0.0, -0.4)))
    best, final = (
        checkpoint.load_segmentor(path).info for path in (run_checkpoints.run.best, run_checkpoints.run.final)
    )
    expected = {**asdict(ORIGIN), "step": 7, "dice": 0.625, "dice_per_class": {"RV": 0.5, "LV": 0.75}}
    assert best == {**expected, "kind": "best"}
    assert final == {**expected, "kind": "final", "class_offsets": [0.0, 0.2, 0.0, -0.4]}


@pytest.mark.parametrize(
    "changes", [{"optim.epochs": 9}, {"train.patience": 3, "train.checkpoint_minutes": 7.0}], ids=["longer", "train"]
)
def test_duration_and_monitoring_settings_may_change_on_resume(
    tiny_config: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    checkpoints(tmp_path, tiny_config).save_last()
    resumed = Checkpoints(
        RunFolder(tmp_path), config := codec.override(tiny_config, changes), TrainState(config, CPU), ORIGIN
    )
    resumed.restore(CPU, other_settings=False)
    assert resumed.state.progress == Progress(step=7, best_dice=0.875)


@pytest.mark.parametrize("changes", [{"train.seed": 5}, {"optim.lr": 1e-2}], ids=["seed", "rate"])
def test_settings_that_affect_learning_may_change_only_on_request(
    tiny_config: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    checkpoints(tmp_path, tiny_config).save_last()
    other = checkpoints(tmp_path, codec.override(tiny_config, changes))
    with pytest.raises(CheckpointError, match=r"the settings have changed; .* train\.\* but train\.seed may change"):
        other.restore(CPU, other_settings=False)
    other.restore(CPU, other_settings=True)


def test_a_state_of_an_earlier_version_without_teachers_resumes(tiny_config: Config, tmp_path: Path) -> None:
    without_teachers = checkpoints(tmp_path, tiny_config, replace(ORIGIN, teachers=[]))
    without_teachers.save_last()
    config, state = checkpoint.load_state(without_teachers.run.last, CPU)
    del state["run"]["teachers"]
    checkpoint.save_state(without_teachers.run.last, config, state)
    without_teachers.restore(CPU, other_settings=False)
    with pytest.raises(CheckpointError, match=r"finished models \[\] as teachers, and .* \['t'\]; name the same"):
        checkpoints(tmp_path, tiny_config).restore(CPU, other_settings=False)
