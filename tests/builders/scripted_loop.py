"""The training loop with fake batches and scripted validation scores, recording the settings of every step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from maag.config import codec
from maag.config.schema import Config
from maag.data.slices.batches import Batch
from maag.labels import IGNORE
from maag.models.segmentor import Segmentor
from maag.train.checkpointing import NO_SAVES
from maag.train.loop import Ending, Loop
from maag.train.reports import EpochReport, StepReport
from maag.train.state import TrainState
from maag.train.stopping import StopRequest
from maag.train.validate import ValidationDice

CPU = torch.device("cpu")
STEPS_PER_EPOCH = 3
SMALL = {"data.size_px": [16, 16], "segmentor.width": 2, "discriminator.width": 2, "optim.batch_size": 2}


class StepSettings(NamedTuple):
    """Learning rates, ramp and noise seed at the time a step requests its batch."""

    lr: float
    lr_discriminator: float
    ramp: float
    seed: int


@dataclass
class RecordingBatches:
    """The same batch in each step; records the StepSettings of each request."""

    state: TrainState
    labelled_up_to: float = math.inf
    """From this step on, all pixels are unlabelled."""
    steps_per_epoch: int = STEPS_PER_EPOCH
    has_soft_labels: bool = False
    step_settings: list[StepSettings] = field(default_factory=list)

    def at(self, step: int) -> Batch:
        lr, lr_discriminator = (float(each.param_groups[0]["lr"]) for each in self.state.optimizers)
        self.step_settings.append(
            StepSettings(lr, lr_discriminator, float(self.state.ramp), self.state.noise.initial_seed())
        )
        images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
        masks[:, 4:12, 4:12] = 1
        labels = masks if step < self.labelled_up_to else torch.full_like(masks, IGNORE)
        return Batch(images, labels, None, masks)


class ScriptedValidator:
    """Returns the given Dice scores in order, then repeats the last one."""

    def __init__(self, *dice_scores: float) -> None:
        self._dice_scores = list(dice_scores)

    def dice(self, segmentor: Segmentor) -> ValidationDice:
        mean = self._dice_scores.pop(0) if len(self._dice_scores) > 1 else self._dice_scores[0]
        return ValidationDice(per_class={"a": mean}, mean=mean)


class RecordingListener:
    """Records all reports, and interrupts training through `stop` at step `stop_at`."""

    def __init__(self, stop: StopRequest, stop_at: float) -> None:
        self._stop, self._stop_at = stop, stop_at
        self.epochs: list[EpochReport] = []
        self.saved: list[int] = []
        self.step_reports: list[StepReport] = []

    def on_step(self, report: StepReport) -> None:
        self.step_reports.append(report)
        if report.step >= self._stop_at:
            self._stop.interrupt("test")

    def on_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def on_checkpoint(self, step: int) -> None:
        self.saved.append(step)


class Run(NamedTuple):
    ending: Ending
    step_settings: list[StepSettings]
    epochs: list[EpochReport]
    saved: list[int]
    step_reports: list[StepReport]


def run_loop(
    tiny_config: Config,
    changes: Mapping[str, Any],
    dice_scores: Sequence[float] = (0.5,),
    *,
    labelled_up_to: float = math.inf,
    stop_at: float = math.inf,
    max_minutes: float | None = None,
    steps_per_epoch: int = STEPS_PER_EPOCH,
) -> Run:
    """Train a tiny model through the loop, and return what was recorded."""
    config = codec.override(tiny_config, {**SMALL, **changes})
    state, stop = TrainState(config, CPU), StopRequest(max_minutes)
    batches, listener = RecordingBatches(state, labelled_up_to, steps_per_epoch), RecordingListener(stop, stop_at)
    loop = Loop(state, batches, ScriptedValidator(*dice_scores), config, NO_SAVES, listener, stop)  # type: ignore[arg-type]
    return Run(loop.run(), batches.step_settings, listener.epochs, listener.saved, listener.step_reports)
