"""One training run, or one worker's part of it, from a configuration and a data folder to a run folder."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from maag import checkpoint
from maag.checkpoint import TrainedSegmentor
from maag.config import codec
from maag.config.schema import Config
from maag.data.batches import TrainingBatches
from maag.data.cache import Progress
from maag.data.prepared import PreparedData, joined_digest, tells_of_others
from maag.data.splits import Split
from maag.data.supervision import supervise
from maag.errors import CheckpointError, DeviceMemoryError, StorageError
from maag.storage import read_json, write_json
from maag.train.acceleration import require_fast
from maag.train.folder import RunFolder
from maag.train.journal import Journal
from maag.train.loop import NOT_KEPT, Ending, Keeper, Loop
from maag.train.offsets import with_offsets
from maag.train.reports import Listener, Listeners
from maag.train.second_stage.lessons import lessons_of
from maag.train.state import TrainState
from maag.train.stopping import StopRequest
from maag.train.team import ALONE, Team
from maag.train.validate import ValidationDice, Validator

RESULT_FORMAT_VERSION = 1
_OF_STEPS = ("steps_per_second", "peak_memory_mib")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended; written to `result.json`."""

    ending: Ending
    run: str
    epochs_done: float
    steps: int
    seconds: float
    best_dice: float | None
    """Mean validation Dice on the training grid, of the best validation; None before the first."""
    best_epoch: int | None
    final_dice: float | None
    """The same of the last weights; None when the run was interrupted."""
    steps_per_second: float
    peak_memory_mib: float
    config_digest: str
    split_digest: str
    data_digest: str


def fit(
    config: Config,
    prepared: PreparedData,
    split: Split,
    run: RunFolder,
    *,
    device: torch.device,
    listener: Listener,
    stop: StopRequest,
    resume: bool,
    shapes: PreparedData | None = None,
    teachers: Sequence[TrainedSegmentor] = (),
    other_settings: bool = False,
    team: Team = ALONE,
    said: Progress | None = None,
) -> Outcome:
    """Train, keeping best and last.

    In a team all workers call it at once, each with a run folder of its own; only the leader's is written to, and
    every worker that resumes reads its own.

    Args:
        config: all settings.
        prepared: the data set.
        split: which of its patients do what.
        run: where everything goes.
        device: where to train.
        listener: is told what happens.
        stop: may ask for an end.
        resume: go on from `checkpoints/last.pt` if there is one.
        shapes: another prepared set, whose masks the discriminator sees instead of the split's.
        teachers: finished models that teach where nobody drew, instead of the average of the run's own weights; see
            `maag.train.second_stage.teachers`.
        other_settings: the checkpoint may be of other settings, of losses and rates say; else that is refused.
        team: the workers that train together.
        said: is told how many cases the `teachers` have been asked of, before the first step.

    Raises:
        ConfigError: the device cannot do what `train.precision` or `train.compile` say, or `data.rater_weights` are
            not one for each rater.
        SplitError: the split leaves nothing to train or validate on.
        DataError: raters who contradict each other, or whose weights cannot be estimated.
        CheckpointError: the checkpoint is damaged or of other data, patients, settings or teachers.
        TrainingError: a loss, a weight or what teachers say became NaN, or the device's memory is too small.
        StorageError: the run folder cannot be written.
    """
    if device.type == "cuda":
        # A process may have trained before, as one that makes a table's runs in turn has. Where CUDA has not begun,
        # there are no peaks, and torch refuses.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)
    require_fast(config.train, device)
    supervision = supervise(prepared, split, config, shapes)
    if supervision.agreement and team.leads:
        run.write_agreement(supervision.agreement)
    run_info: dict[str, Any] = {
        "config_digest": codec.digest(config),
        "split_digest": split.digest,
        "data_digest": joined_digest(prepared, shapes),
        "split_scheme": split.scheme,
        "teachers": [teacher.digest for teacher in teachers],
    }
    with _memory_told(config, device):
        if teachers:
            models = [teacher.segmentor for teacher in teachers]
            lessons = lessons_of(models, prepared, supervision, config, device, team, run.path, said, stop=stop)
            supervision = replace(supervision, lessons=lessons)
        batches = TrainingBatches(supervision, config, device, team.shard)
        validator = Validator(prepared, split.val, config.data, device, team, fit_offsets=config.train.class_offsets)
        state = TrainState(config, device, team)
        if resume and run.last.exists():
            _restore(state, run, None if other_settings else config, run_info, device)
        began_at = state.progress.step

        def save_segmentor(path: Path, kind: str, dice: ValidationDice) -> None:
            facts = {
                "kind": kind,
                "step": state.progress.step,
                "dice": dice.mean,
                "dice_per_class": dice.per_class,
                **({"class_offsets": dice.offsets} if dice.offsets else {}),
            }
            weights = with_offsets(state.product.state_dict(), dice.offsets)
            checkpoint.save_segmentor(path, config, weights, {**run_info, **facts})

        keeper = Keeper(
            save_last=lambda: checkpoint.save_state(run.last, config, {**state.state_dict(), "run": run_info}),
            save_best=lambda dice: save_segmentor(run.best, "best", dice),
        )
        with Journal(run, state.progress.step) if team.leads else nullcontext() as journal:
            listeners = Listeners(journal, listener) if journal else listener
            loop = Loop(state, batches, validator, config, keeper if team.leads else NOT_KEPT, listeners, stop)
            ending = loop.run()
        final_dice = None
        if ending != "interrupted":
            final_dice = loop.validate()
            if team.leads:
                save_segmentor(run.final, "final", final_dice)
    validated = state.progress.best_epoch > 0
    outcome = Outcome(
        ending=ending,
        run=str(run.path),
        epochs_done=state.progress.step / batches.steps_per_epoch,
        steps=state.progress.step,
        seconds=state.progress.seconds,
        best_dice=state.progress.best_dice if validated else None,
        best_epoch=state.progress.best_epoch if validated else None,
        final_dice=final_dice.mean if final_dice else None,
        steps_per_second=loop.steps_per_second,
        peak_memory_mib=peak_memory_mib(device),
        config_digest=run_info["config_digest"],
        split_digest=split.digest,
        data_digest=run_info["data_digest"],
    )
    if state.progress.step == began_at and run.result.exists():
        # It had ended, and no step was taken that could be timed.
        outcome = replace(outcome, **_of_steps(run.result))
    if team.leads:
        write_outcome(run, outcome)
    return outcome


def _of_steps(result: Path) -> dict[str, Any]:
    """What an earlier `result.json` says of steps; nothing where it is damaged, for it is about to be written anew."""
    try:
        earlier = read_json(result)
    except StorageError:
        return {}
    return {name: earlier[name] for name in _OF_STEPS if name in earlier} if isinstance(earlier, dict) else {}


def write_outcome(run: RunFolder, outcome: Outcome) -> None:
    """Write `result.json`. Raises StorageError."""
    write_json(run.result, {"format_version": RESULT_FORMAT_VERSION, **asdict(outcome)})


def peak_memory_mib(device: torch.device) -> float:
    """Highest memory of this run in MiB: the device's allocations on CUDA, the process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes.
    return kilobytes / 2**20 if sys.platform == "darwin" else kilobytes / 2**10


@contextmanager
def _memory_told(config: Config, device: torch.device) -> Iterator[None]:
    """Raises DeviceMemoryError where memory of the device runs out."""
    try:
        yield
    except torch.OutOfMemoryError as problem:
        # What torch says after that is of its own settings and of other processes.
        said = ". ".join(str(problem).split(". ")[:3])
        height, width = config.data.size_px
        raise DeviceMemoryError(
            f"{device}: its memory does not hold training with optim.batch_size={config.optim.batch_size} and "
            f"data.size_px=[{height},{width}] ({said}); take less of either, or free it of other work"
        ) from problem


def _restore(
    state: TrainState, run: RunFolder, config: Config | None, run_info: dict[str, Any], device: torch.device
) -> None:
    saved_config, saved = checkpoint.load_state(run.last, device)
    if tells_of_others(saved["run"]["data_digest"], run_info["data_digest"]):
        raise CheckpointError(
            f"{run.last}: the run was trained on other data ({saved['run']['data_digest']}) than are here now "
            f"({run_info['data_digest']}); restore the data set as it was, or start a new run"
        )
    if saved["run"]["split_digest"] != run_info["split_digest"]:
        raise CheckpointError(
            f"{run.last}: the run was trained on split {saved['run']['split_digest']}, and here it is "
            f"{run_info['split_digest']}, whose patients to validate and test on it may have learnt from; restore its "
            f"{run.split.name}, or start a new run"
        )
    teachers = saved["run"].get("teachers", [])
    if teachers != run_info["teachers"]:
        raise CheckpointError(
            f"{run.last}: the run was taught by finished models {teachers}, and those of --teacher here are "
            f"{run_info['teachers']}; name the same with --teacher, in the same order"
        )
    if config is not None and _without_length(saved_config) != _without_length(config):
        raise CheckpointError(f"{run.last}: the settings changed since; only optim.epochs and train.* may, on a resume")
    state.load_state_dict(saved)


def _without_length(config: Config) -> dict[str, Any]:
    plain = codec.to_dict(config)
    seed = plain.pop("train")["seed"]
    del plain["optim"]["epochs"]
    return {**plain, "seed": seed}
