"""The training loop: steps, epochs, validation, checkpoints, and the ways to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from maag.config.schema import Config
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.draws import seed_of
from maag.train.checkpointing import Saver, SaveTimes
from maag.train.early_stopping import out_of_patience, record_validation
from maag.train.loss_sums import LossSums, not_finite, steps_between_readings
from maag.train.recorded import updates_of
from maag.train.reports import EpochReport, Listener, StepReport
from maag.train.schedule import ramp_factor, rate_factor, validates_after
from maag.train.state import TrainState
from maag.train.stopping import StopRequest
from maag.train.validate import ValidationDice, Validator

Ending = Literal["done", "early", "time", "interrupted"]


class Loop:
    """Train `state` on `batches` to the last epoch, an early stop, a time limit or an interruption."""

    def __init__(
        self,
        state: TrainState,
        batches: TrainingBatches,
        validator: Validator,
        config: Config,
        saver: Saver,
        listener: Listener,
        stop: StopRequest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._batches = batches
        self._validator = validator
        self._config = config
        self._saver = saver
        self._listener = listener
        self._stop = stop
        self._team = state.team
        self._update = updates_of(state, config)
        self._between_readings = steps_between_readings(state.noise.device)
        self._losses = LossSums(state, config.optim.lr)
        self._steps_here = 0
        self._seconds_in_steps = 0.0
        self._clock = clock
        self._counted_at = clock()
        self._saves = SaveTimes(clock)
        self._validated: tuple[int, ValidationDice] | None = None
        # A save averages the running statistics over the workers. If teachers predicted with different ones in between,
        # soft labels would depend on when saves happen, and a resumed run would differ from an undisturbed one.
        own_teacher = config.loss.teacher > 0 and not batches.has_soft_labels
        self._average_each_step = self._team.size > 1 and own_teacher and not config.segmentor.sync_batchnorm

    def run(self) -> Ending:
        """Train from the current step on.

        Returns:
            `done` after the last epoch, `early` after `patience` validations without gain, `time` at the time limit
            (after a validation), `interrupted` on a request to stop. The state is saved in each case.

        Raises:
            TrainingError: a loss or a weight is NaN or infinite; the checkpoints are from before it.
            StorageError: a checkpoint could not be written; the one before it is intact.
        """
        progress, per_epoch = self._state.progress, self._batches.steps_per_epoch
        total = per_epoch * self._config.optim.epochs
        if progress.step < total and out_of_patience(progress, self._config.train):  # of a run that is resumed
            return self._save_and_return("early")
        if progress.step < total and self._requests(at_reading=True)[0]:
            # The interruption may have cut off the predictions of finished teachers, so no step may follow.
            return self._save_and_return("interrupted")
        while progress.step < total:
            self._step()
            at_end = progress.step % per_epoch == 0
            at_reading = at_end or progress.step % self._between_readings == 0
            if at_reading:
                self._read_losses()
                self._listener.on_step(self._step_report())
            interrupted, out_of_time, save_is_due = self._requests(at_reading=at_reading)
            if at_end or out_of_time:
                self._end_epoch(validate=out_of_time)
            if progress.step == total:
                break  # Training is complete, whatever was requested meanwhile.
            # Only after the end of the epoch is handled, or a resumed run would miss its validation.
            if interrupted:
                return self._save_and_return("interrupted")
            if out_of_time:
                return self._save_and_return("time")
            if out_of_patience(progress, self._config.train):
                return self._save_and_return("early")
            if save_is_due:
                self._save()
        return self._save_and_return("done")

    def validate(self) -> ValidationDice:
        """Validation Dice of `state.eval_segmentor`; measured at most once per step."""
        step = self._state.progress.step
        if self._validated is None or self._validated[0] != step:
            self._average_statistics()
            self._require_finite_weights()
            self._validated = (step, self._validator.dice(self._state.eval_segmentor))
        return self._validated[1]

    @property
    def steps_per_second(self) -> float:
        """Training speed of this process, without validation and saving; 0 before the first step."""
        return self._steps_here / self._seconds_in_steps if self._seconds_in_steps else 0.0

    def _requests(self, *, at_reading: bool) -> tuple[bool, ...]:
        """Whether an interruption, the end of the time limit and a save are requested, by any of the workers."""
        if not at_reading and self._team.size > 1:
            return False, False, False  # agreement waits for the slowest worker, so not at every step
        return self._team.any(
            self._stop.interrupted is not None,
            self._stop.out_of_time,
            self._saves.is_due(self._config.train.checkpoint_minutes) or self._stop.save_requested,
        )

    def _step(self) -> None:
        started = self._clock()
        state, optim = self._state, self._config.optim
        step = state.progress.step
        epoch = step / self._batches.steps_per_epoch
        factor = rate_factor(optim, epoch)
        state.set_rates(factor * optim.lr, factor * optim.lr_discriminator)
        state.ramp = ramp_factor(self._config.teacher.ramp, epoch / optim.epochs)
        state.noise.manual_seed(seed_of(self._config.train.seed, "noise", step))
        self._losses.add(self._update(self._batches.at(step)))
        if self._average_each_step:
            self._average_statistics()
        state.progress.step += 1
        self._steps_here += 1
        self._seconds_in_steps += self._clock() - started

    def _read_losses(self) -> None:
        started = self._clock()
        if self._losses.read():
            # Reading waited for queued steps, so its time is theirs.
            self._seconds_in_steps += self._clock() - started

    def _end_epoch(self, *, validate: bool) -> None:
        self._read_losses()
        progress, config = self._state.progress, self._config
        epoch = math.ceil(progress.step / self._batches.steps_per_epoch)
        validation = None
        is_best = False
        at_end = progress.step % self._batches.steps_per_epoch == 0
        is_due = at_end and validates_after(config.train, epoch, config.optim.epochs)
        if validate or is_due:
            validation = self.validate()
            is_best = record_validation(progress, validation.mean, epoch, config.train, is_due=is_due)
            if is_best:
                self._saver.save_best(validation)
        self._listener.on_epoch(
            EpochReport(
                epoch=epoch,
                epochs=config.optim.epochs,
                step=progress.step,
                seconds=self._seconds(),
                lr=self._rate(),
                losses=self._losses.means(),
                steps_per_second=self.steps_per_second,
                validation=validation,
                is_best=is_best,
            )
        )
        self._losses.begin_epoch()
        # Only the leader writes checkpoints, so only it knows how long that takes.
        cheap = self._team.leads and self._saves.are_cheap
        if validation is not None and self._team.any(cheap or self._stop.save_requested)[0]:
            self._save()

    def _save_and_return(self, ending: Ending) -> Ending:
        self._read_losses()
        self._save()
        return ending

    def _save(self) -> None:
        """Save the state, at most once per step: training may end right after a validation that saved it."""
        step = self._state.progress.step
        self._stop.save_requested = False
        if self._saves.last_step == step:
            return
        with self._saves.timed(step):
            self._read_losses()
            self._state.progress.seconds = self._seconds()
            self._counted_at = self._clock()
            self._average_statistics()
            self._require_finite_weights()
            self._saver.save_last()
            self._listener.on_checkpoint(step)

    def _average_statistics(self) -> None:
        for network in (self._state.segmentor, self._state.teacher):
            if network is not None:
                self._team.average_statistics(network)

    def _require_finite_weights(self) -> None:
        """Finite losses are not enough: those of the last step were computed before it changed the weights."""
        if names := self._state.non_finite_networks:
            step = self._state.progress.step
            raise not_finite(f"weights of the {names[0]} are NaN or infinite after step {step}", self._config.optim.lr)

    def _step_report(self) -> StepReport:
        progress, epochs = self._state.progress, self._config.optim.epochs
        total = epochs * self._batches.steps_per_epoch
        # From wall time, because validation and checkpoints take their share of the time left.
        per_step = self._seconds() / progress.step
        return StepReport(
            step=progress.step,
            epoch=math.ceil(progress.step / self._batches.steps_per_epoch),
            epochs=epochs,
            lr=self._rate(),
            losses=self._losses.means(),
            steps_per_second=self.steps_per_second,
            seconds_left=per_step * (total - progress.step),
        )

    def _rate(self) -> float:
        return float(self._state.segmentor_optimizer.param_groups[0]["lr"])

    def _seconds(self) -> float:
        return self._state.progress.seconds + self._clock() - self._counted_at
