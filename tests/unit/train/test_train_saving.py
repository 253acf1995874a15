"""What a run's checkpoints say of it, and what may be another before it goes on from one."""

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


def test_weights_for_use_say_what_they_are_and_where_they_come_from(tiny_config: Config, tmp_path: Path) -> None:
    kept = checkpoints(tmp_path, tiny_config)
    kept.save_best(DICE)
    kept.save_final(replace(DICE, offsets=(0.0, 0.2, 0.0, -0.4)))
    best, final = (checkpoint.load_segmentor(path).info for path in (kept.run.best, kept.run.final))
    said = {**asdict(ORIGIN), "step": 7, "dice": 0.625, "dice_per_class": {"RV": 0.5, "LV": 0.75}}
    assert best == {**said, "kind": "best"}
    assert final == {**said, "kind": "final", "class_offsets": [0.0, 0.2, 0.0, -0.4]}


@pytest.mark.parametrize(
    "changes", [{"optim.epochs": 9}, {"train.patience": 3, "train.checkpoint_minutes": 7.0}], ids=["longer", "train"]
)
def test_how_long_and_how_it_is_watched_may_be_others_on_a_resume(
    tiny_config: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    checkpoints(tmp_path, tiny_config).save_last()
    resumed = Checkpoints(
        RunFolder(tmp_path), config := codec.override(tiny_config, changes), TrainState(config, CPU), ORIGIN
    )
    resumed.restore(CPU, other_settings=False)
    assert resumed.state.progress == Progress(step=7, best_dice=0.875)


@pytest.mark.parametrize("changes", [{"train.seed": 5}, {"optim.lr": 1e-2}], ids=["seed", "rate"])
def test_what_is_learned_from_may_be_another_only_where_a_search_exchanges_it(
    tiny_config: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    checkpoints(tmp_path, tiny_config).save_last()
    other = checkpoints(tmp_path, codec.override(tiny_config, changes))
    with pytest.raises(CheckpointError, match=r"the settings have changed; .* train\.\* but train\.seed may change"):
        other.restore(CPU, other_settings=False)
    other.restore(CPU, other_settings=True)


def test_a_state_of_an_earlier_version_which_knew_no_teachers_goes_on(tiny_config: Config, tmp_path: Path) -> None:
    alone = checkpoints(tmp_path, tiny_config, replace(ORIGIN, teachers=[]))
    alone.save_last()
    config, state = checkpoint.load_state(alone.run.last, CPU)
    del state["run"]["teachers"]
    checkpoint.save_state(alone.run.last, config, state)
    alone.restore(CPU, other_settings=False)
    with pytest.raises(CheckpointError, match=r"finished models \[\] as teachers, and .* \['t'\]; name the same"):
        checkpoints(tmp_path, tiny_config).restore(CPU, other_settings=False)
