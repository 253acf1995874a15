"""Short training runs on synthetic patients, on the CPU."""

from __future__ import annotations

from pathlib import Path

import torch

from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.splits import Split
from maag.train.fit import fit
from maag.train.folder import RunFolder, create_run
from maag.train.outcome import Outcome
from maag.train.reports import EpochReport, StepReport
from maag.train.stopping import StopRequest

CPU = torch.device("cpu")


class StopAt:
    """A listener that interrupts training at `step`."""

    def __init__(self, stop: StopRequest, step: int) -> None:
        self._stop, self._step = stop, step

    def on_step(self, report: StepReport) -> None:
        if report.step >= self._step:
            self._stop.interrupt("test")

    def on_epoch(self, report: EpochReport) -> None:
        pass

    def on_checkpoint(self, step: int) -> None:
        pass


def run_training(
    config: Config, prepared: PreparedData, split: Split, path: Path, *, stop_at: int = 10**9, resume: bool = False
) -> Outcome:
    """Train a new run in `path`, or resume the one that is there."""
    run = RunFolder(path) if resume else create_run(path, config, split)
    stop = StopRequest()
    listener = StopAt(stop, stop_at)
    return fit(config, prepared, split, run, device=CPU, listener=listener, stop=stop, resume=resume)


ALL_TERMS = {
    "loss.adversarial_unlabelled": 0.2,
    "teacher.decay": 0.9,
    "teacher.confidence": 0.3,
    "teacher.gates": 0.5,
    "teacher.rotation_deg": 30,
    "loss.teacher": 1.0,
    "loss.areas": 0.1,
}
"""All optional terms of the loss."""
ALL_AUGMENTATIONS = {
    "augment.elastic": 0.02,
    "augment.gamma": 0.3,
    "augment.interpolation": "cubic",
    "augment.cutout": 0.3,
}
"""All augmentations that presets leave out."""
ALL_FEATURES = {**ALL_TERMS, **ALL_AUGMENTATIONS, "optim.schedule": "poly"}
"""Optional losses, augmentations and the poly schedule, all at once."""
