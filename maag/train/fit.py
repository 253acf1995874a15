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
from maag.train.checkpointing import NO_SAVES, Saver
from maag.train.folder import RunFolder
from maag.train.journal import Journal
from maag.train.loop import Loop
from maag.train.outcome import Outcome, begin_peak_memory, peak_memory_mib, with_earlier_steps, write_outcome
from maag.train.reports import Listener, Listeners
from maag.train.saving import Checkpoints, origin_of
from maag.train.second_stage.soft_labels import predict_soft_labels
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
    teacher_progress: Progress | None = None,
) -> Outcome:
    """Train a segmentor; keep the best, the final and the last checkpoint.

    All workers of a team call it at once, each with its own run folder. Only the leader's folder is written to; on a
    resume every worker reads its own.

    Args:
        config: all settings.
        prepared: the data set.
        split: the role of each of its patients.
        run: the run folder.
        device: where to train.
        listener: receives progress reports.
        stop: may request an early end.
        resume: continue from `checkpoints/last.pt` if it exists.
        shapes: another prepared set, whose masks the discriminator sees instead of the split's.
        teachers: finished models whose soft labels supervise unlabelled pixels, instead of those of the run's own
            average; see `maag.train.second_stage.teachers`.
        other_settings: accept a checkpoint with other settings, such as losses and rates, instead of refusing it.
        team: the workers that train together.
        teacher_progress: called with (cases done, cases in all) while the `teachers` predict, before the first step.

    Raises:
        ConfigError: the device does not support `train.precision` or `train.compile`, or `data.rater_weights` has not
            one weight for each rater.
        SplitError: the split leaves nothing to train or validate on.
        DataError: raters contradict each other, or their weights cannot be estimated.
        CheckpointError: the checkpoint is damaged or has other data, patients, settings or teachers.
        TrainingError: a loss, a weight or a teacher's prediction became NaN, or the device's memory is too small.
        StorageError: the run folder cannot be written.
    """
    begin_peak_memory(device)
    require_fast(config.train, device)
    supervision = supervise(prepared, split, config, shapes)
    if supervision.agreement and team.leads:
        run.write_agreement(supervision.agreement)
    origin = origin_of(config, prepared, split, shapes, teachers)
    with _device_memory_errors(config, device):
        if teachers:
            models = [teacher.segmentor for teacher in teachers]
            soft_labels = predict_soft_labels(
                models, prepared, supervision, config, device, team, run.path, teacher_progress, stop=stop
            )
            supervision = replace(supervision, soft_labels=soft_labels)
        batches = TrainingBatches(supervision, config, device, team.shard)
        validator = Validator(prepared, split.val, config.data, device, team, fit_offsets=config.train.class_offsets)
        state = TrainState(config, device, team)
        checkpoints = Checkpoints(run, config, state, origin)
        if resume and run.last.exists():
            checkpoints.restore(device, other_settings=other_settings)
        began_at = state.progress.step
        saver = Saver(save_last=checkpoints.save_last, save_best=checkpoints.save_best) if team.leads else NO_SAVES
        with Journal(run, began_at) if team.leads else nullcontext() as journal:
            listeners = Listeners(journal, listener) if journal else listener
            loop = Loop(state, batches, validator, config, saver, listeners, stop)
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
def _device_memory_errors(config: Config, device: torch.device) -> Iterator[None]:
    """Raise DeviceMemoryError if the device runs out of memory."""
    try:
        yield
    except torch.OutOfMemoryError as problem:
        # The rest of torch's message is about its own settings and other processes.
        reason = ". ".join(str(problem).split(". ")[:3])
        height, width = config.data.size_px
        raise DeviceMemoryError(
            f"{device}: out of memory in training with optim.batch_size={config.optim.batch_size} and "
            f"data.size_px=[{height},{width}] ({reason}); lower either, or end other work on the device"
        ) from problem
