"""The time of a training run outside its steps, and of a whole run."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import torch
from roofline import wait

from maag import checkpoint
from maag.config.schema import Config
from maag.data.cache.preparing import prepare
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import Supervision, supervise
from maag.data.splits import Split
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.validate import Validator


def time_overheads(
    config: Config, data: Path, cache: Path, split: Split, device: torch.device, scratch: Path
) -> dict[str, float]:
    """Seconds of everything that a run does outside its steps, with prepared data."""
    seconds = {}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import maag.cli.train, maag.train.fit"], check=True)
    seconds["importing"] = time.perf_counter() - started

    started = time.perf_counter()
    prepared = prepare(data, config.data, cache)
    batches = TrainingBatches(supervise(prepared, split, config), config, device)
    validator = Validator(prepared, split.val, config.data, device, fit_offsets=config.train.class_offsets)
    state = TrainState(config, device)
    wait(device)
    seconds["opening"] = time.perf_counter() - started
    for name in ("first_step", "second_step"):
        started = time.perf_counter()
        state.set_rates(config.optim.lr, config.optim.lr_discriminator)
        update(state, batches.at(0), config)
        wait(device)
        seconds[name] = time.perf_counter() - started

    validator.dice(state.eval_segmentor)
    started = time.perf_counter()
    validator.dice(state.eval_segmentor)
    seconds["validation"] = time.perf_counter() - started
    started = time.perf_counter()
    checkpoint.save_state(scratch / checkpoint.LAST, config, state.state_dict())
    checkpoint.save_segmentor(scratch / checkpoint.BEST, config, state.eval_segmentor.state_dict(), {})
    seconds["checkpoint"] = time.perf_counter() - started
    return {f"seconds_{name}": value for name, value in seconds.items()}


def whole_run(config: Config, supervision: Supervision, report: dict[str, float]) -> float:
    """Seconds of a whole run from the start; a best checkpoint is assumed after every validation."""
    epochs, train = config.optim.epochs, config.train
    per_epoch = TrainingBatches(supervision, config, torch.device("cpu")).steps_per_epoch
    early = (epochs // 2) // train.validate_every
    late = math.ceil((epochs - epochs // 2) / train.validate_every_late)
    starting = sum(report[f"seconds_{name}"] for name in ("importing", "opening", "first_step"))
    between = (early + late) * (report["seconds_validation"] + report["seconds_checkpoint"])
    return starting + epochs * per_epoch / report["loop_steps_per_second"] + between
