"""The training loop on scripted validations, whose every step is written down; no data, little work."""

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


class Course(NamedTuple):
    """What was set when a step asked for its batch."""

    lr: float
    lr_discriminator: float
    ramp: float
    seed: int


@dataclass
class WatchingBatches:
    """The same images in each step; all that the loop has set by then is written down."""

    state: TrainState
    labelled_up_to: float = math.inf
    """In later steps nothing is known."""
    steps_per_epoch: int = STEPS_PER_EPOCH
    has_soft_labels: bool = False
    courses: list[Course] = field(default_factory=list)

    def at(self, step: int) -> Batch:
        lr, lr_discriminator = (float(each.param_groups[0]["lr"]) for each in self.state.optimizers)
        self.courses.append(Course(lr, lr_discriminator, float(self.state.ramp), self.state.noise.initial_seed()))
        images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
        masks[:, 4:12, 4:12] = 1
        labels = masks if step < self.labelled_up_to else torch.full_like(masks, IGNORE)
        return Batch(images, labels, None, masks)


class ScriptedValidator:
    """Finds one Dice after the other, the last of them again and again."""

    def __init__(self, *dices: float) -> None:
        self._dices = list(dices)

    def dice(self, segmentor: Segmentor) -> ValidationDice:
        mean = self._dices.pop(0) if len(self._dices) > 1 else self._dices[0]
        return ValidationDice(per_class={"a": mean}, mean=mean)


class Listening:
    """Remembers the epochs, and asks `stop` for an end at step `stop_at`."""

    def __init__(self, stop: StopRequest, stop_at: float) -> None:
        self._stop, self._stop_at = stop, stop_at
        self.epochs: list[EpochReport] = []
        self.saved: list[int] = []
        self.glances: list[StepReport] = []

    def on_step(self, report: StepReport) -> None:
        self.glances.append(report)
        if report.step >= self._stop_at:
            self._stop.interrupt("test")

    def on_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def on_checkpoint(self, step: int) -> None:
        self.saved.append(step)


class Run(NamedTuple):
    ending: Ending
    courses: list[Course]
    epochs: list[EpochReport]
    saved: list[int]
    glances: list[StepReport]


def run_it(
    tiny_config: Config,
    changes: Mapping[str, Any],
    dices: Sequence[float] = (0.5,),
    *,
    labelled_up_to: float = math.inf,
    stop_at: float = math.inf,
    max_minutes: float | None = None,
    steps_per_epoch: int = STEPS_PER_EPOCH,
) -> Run:
    config = codec.override(tiny_config, {**SMALL, **changes})
    state, stop = TrainState(config, CPU), StopRequest(max_minutes)
    batches, listener = WatchingBatches(state, labelled_up_to, steps_per_epoch), Listening(stop, stop_at)
    loop = Loop(state, batches, ScriptedValidator(*dices), config, NO_SAVES, listener, stop)  # type: ignore[arg-type]
    return Run(loop.run(), batches.courses, listener.epochs, listener.saved, listener.glances)
