"""One training run, or one worker's part of it, from a configuration and a data folder to a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch

from maag.checkpoint import TrainedSegmentor
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.cache.preparing import Progress
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.supervision import supervise
from maag.data.splits import Split
from maag.errors import DeviceMemoryError
from maag.train.acceleration import require_fast
from maag.train.folder import RunFolder
from maag.train.journal import Journal
from maag.train.keeping import NOT_KEPT, Keeper
from maag.train.loop import Loop
from maag.train.outcome import Outcome, begin_peak_memory, peak_memory_mib, with_earlier_steps, write_outcome
from maag.train.reports import Listener, Listeners
from maag.train.saving import Checkpoints, origin_of
from maag.train.second_stage.lessons import lessons_of
from maag.train.shortfalls import note_shortfalls
from maag.train.state import TrainState
from maag.train.stopping import StopRequest
from maag.train.team import ALONE, Team
from maag.train.validate import Validator


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
    begin_peak_memory(device)
    require_fast(config.train, device)
    supervision = supervise(prepared, split, config, shapes)
    if supervision.agreement and team.leads:
        run.write_agreement(supervision.agreement)
    origin = origin_of(config, prepared, split, shapes, teachers)
    with _memory_told(config, device):
        if teachers:
            models = [teacher.segmentor for teacher in teachers]
            lessons = lessons_of(models, prepared, supervision, config, device, team, run.path, said, stop=stop)
            supervision = replace(supervision, soft_labels=lessons)
        batches = TrainingBatches(supervision, config, device, team.shard)
        validator = Validator(prepared, split.val, config.data, device, team, fit_offsets=config.train.class_offsets)
        state = TrainState(config, device, team)
        checkpoints = Checkpoints(run, config, state, origin)
        if resume and run.last.exists():
            checkpoints.restore(device, other_settings=other_settings)
        began_at = state.progress.step
        keeper = Keeper(save_last=checkpoints.save_last, save_best=checkpoints.save_best) if team.leads else NOT_KEPT
        with Journal(run, began_at) if team.leads else nullcontext() as journal:
            listeners = Listeners(journal, listener) if journal else listener
            loop = Loop(state, batches, validator, config, keeper, listeners, stop)
            ending = loop.run()
        final = loop.validate() if ending != "interrupted" else None
        if final and team.leads:
            checkpoints.save_final(final)
            for path in (run.best, run.final):
                if path.exists():
                    note_shortfalls(path, prepared, split.val, device)
    validated = state.progress.best_epoch > 0
    outcome = Outcome(
        ending=ending,
        run=str(run.path),
        epochs_done=state.progress.step / batches.steps_per_epoch,
        steps=state.progress.step,
        seconds=state.progress.seconds,
        best_dice=state.progress.best_dice if validated else None,
        best_epoch=state.progress.best_epoch if validated else None,
        final_dice=final.mean if final else None,
        steps_per_second=loop.steps_per_second,
        peak_memory_mib=peak_memory_mib(device),
        config_digest=origin.config_digest,
        split_digest=origin.split_digest,
        data_digest=origin.data_digest,
    )
    if state.progress.step == began_at:
        outcome = with_earlier_steps(outcome, run)
    if team.leads:
        write_outcome(run, outcome)
    return outcome


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
