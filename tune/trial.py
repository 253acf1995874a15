"""One trial: the very `fit` of `maag train`, in a Ray worker, that tells the search how it goes."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune as ray_tune

from maag.config import codec
from maag.config.schema import Config
from maag.storage import read_json, write_json

MEDIAN_OF = 3
"""Validations whose median is the objective: a lucky peak is not a better setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """What all trials of a search have in common; plain enough to travel to any node."""

    base: dict[str, Any]
    """The configuration that samples are laid over, as `codec.to_dict` gives it."""
    data_dir: str
    scribbles: tuple[str, ...]
    cache_root: str
    split: dict[str, Any]
    trials_dir: str
    """Where each trial has its run folder."""
    device: str
    threads: int
    """Of PyTorch, on a CPU."""
    share_state: bool
    """Report whole training states, so that another trial may go on from them."""


def run_trial(sample: Mapping[str, Any], plan: TrialPlan) -> None:
    """Train the base configuration with `sample`, going on from its own run folder if there is one.

    Raises what `fit` raises; Ray records it, and the search goes on.
    """
    import torch

    from maag.data.cache import prepare
    from maag.data.splits import Split
    from maag.train.fit import fit
    from maag.train.folder import RunFolder, create_run
    from maag.train.stopping import StopRequest

    if plan.device == "cpu":
        torch.set_num_threads(plan.threads)
    config = codec.override(codec.from_dict(plan.base), sample)
    run = RunFolder(Path(plan.trials_dir) / str(ray_tune.get_context().get_trial_id()))
    split = Split.from_dict(plan.split)
    if run.config.exists() and not plan.share_state and read_json(run.config) != codec.document(config):
        # The search was killed before it wrote this trial's sample down, and has drawn another one.
        shutil.rmtree(run.path)
    if run.config.exists():
        write_json(run.config, codec.document(config))
    else:
        create_run(run.path, config, split)
    inherited = _inherit_state(run)
    fit(
        config,
        prepare(Path(plan.data_dir), config.data, Path(plan.cache_root), plan.scribbles),
        split,
        run,
        device=torch.device(plan.device),
        listener=_Reporter(run, share_state=plan.share_state),
        stop=StopRequest(),
        resume=True,
        other_settings=inherited,
    )


def best_config(plan: TrialPlan, sample: Mapping[str, Any]) -> Config:
    """The whole configuration of a trial."""
    return codec.override(codec.from_dict(plan.base), sample)


def objective(dices: Sequence[float]) -> float:
    """What a search maximises: the median of the last validations' mean Dice."""
    return statistics.median(dices[-MEDIAN_OF:])


def _inherit_state(run: Any) -> bool:
    """Take over the state that the scheduler hands to this trial, if it does. Whether it did."""
    checkpoint = ray_tune.get_checkpoint()
    if checkpoint is None:
        return False
    with checkpoint.as_directory() as folder:
        handed = Path(folder) / run.last.name
        if not handed.exists() or (run.last.exists() and handed.read_bytes() == run.last.read_bytes()):
            return False
        run.last.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(handed, run.last)
    return True


class _Reporter:
    """Reports to Ray after each validation, when the state that it belongs to is safe on disk."""

    def __init__(self, run: Any, *, share_state: bool) -> None:
        self._run = run
        self._share_state = share_state
        self._waiting: dict[str, Any] | None = None

    def on_live(self, live: Any) -> None:
        """Nothing."""

    def on_epoch(self, report: Any) -> None:
        """Remember what the checkpoint that follows a validation will be reported with."""
        if report.validation is not None:
            dices = [*self._earlier_dices(before=report.epoch), report.validation.mean]
            self._waiting = {
                "epoch": report.epoch,
                "epochs": report.epochs,
                "mean_dice": report.validation.mean,
                "best_dice": max(dices),
                "objective": objective(dices),
                "seconds": report.seconds,
                "steps_per_second": report.steps_per_second,
            }

    def on_checkpoint(self, step: int) -> None:
        """Report, and hand the state over where another trial may want it."""
        if self._waiting is None:
            return
        metrics, self._waiting = self._waiting, None
        if not self._share_state:
            ray_tune.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(self._run.last, folder)
            ray_tune.report(metrics, checkpoint=ray_tune.Checkpoint.from_directory(folder))

    def _earlier_dices(self, *, before: int) -> list[float]:
        if not self._run.metrics.exists():
            return []
        lines = [json.loads(line) for line in self._run.metrics.read_text(encoding="utf-8").splitlines()]
        return [line["mean_dice"] for line in lines if "mean_dice" in line and line["epoch"] < before]
