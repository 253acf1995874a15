"""When the loop saves the state, and that it saves neither twice nor non-finite weights."""

from __future__ import annotations

import math

import pytest
from scripted_loop import CPU, SMALL, STEPS_PER_EPOCH, RecordingBatches, RecordingListener, ScriptedValidator, run_loop
from torch import nn

from maag.config import codec
from maag.config.schema import Config
from maag.data.slices.batches import Batch
from maag.errors import NotFiniteError
from maag.train.checkpointing import NO_SAVES, Saver
from maag.train.loop import Loop
from maag.train.reports import EpochReport, StepReport
from maag.train.state import TrainState
from maag.train.stopping import StopRequest


@pytest.mark.slow
def test_the_state_is_saved_within_epochs_when_the_last_save_is_old(tiny_config: Config) -> None:
    changes = {"train.validate_every": 2, "train.checkpoint_minutes": 1e-9}
    every_step = list(range(1, 2 * STEPS_PER_EPOCH + 1))
    assert run_loop(tiny_config, changes).saved == every_step
    seldom = run_loop(tiny_config, {**changes, "train.checkpoint_minutes": 60.0})
    assert seldom.saved == [2 * STEPS_PER_EPOCH]


@pytest.mark.slow
def test_a_run_that_ends_at_a_validation_is_not_saved_twice(tiny_config: Config) -> None:
    """A second save would be a second upload on a cluster."""
    changes = {"optim.epochs": 9, "train.patience": 2}
    early = run_loop(tiny_config, changes)
    assert early.ending == "early"
    assert early.saved[-1] == 3 * STEPS_PER_EPOCH
    assert early.saved == sorted(set(early.saved))
    stopped = run_loop(tiny_config, changes, stop_at=STEPS_PER_EPOCH)
    assert (stopped.ending, stopped.saved) == ("interrupted", [STEPS_PER_EPOCH])
    out_of_time = run_loop(tiny_config, changes, max_minutes=0)
    assert (out_of_time.ending, out_of_time.saved) == ("time", [1])


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1.0

    def __call__(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds


def train_by_clock(
    config: Config, seconds_a_save: float, earlier: float = 0.0
) -> tuple[list[int], list[EpochReport], float]:
    """Train by a clock on which a step takes a second: the saved steps, the epochs, and the reported seconds."""
    state, stop, clock = TrainState(config, CPU), StopRequest(), Clock()
    state.progress.seconds = earlier

    class TimedBatches(RecordingBatches):
        def at(self, step: int) -> Batch:
            clock.move(1)
            return super().at(step)

    listener = RecordingListener(stop, math.inf)
    saver = Saver(save_last=lambda: clock.move(seconds_a_save), save_best=lambda dice: None)
    loop = Loop(state, TimedBatches(state), ScriptedValidator(0.5), config, saver, listener, stop, clock)  # type: ignore[arg-type]
    loop.run()
    return listener.saved, listener.epochs, state.progress.seconds


@pytest.mark.parametrize(("seconds_a_save", "epochs"), [(0.2, [1, 2, 3]), (0.4, [1, 3])])
def test_a_validation_saves_the_state_unless_saves_take_a_tenth_of_the_time(
    tiny_config: Config, seconds_a_save: float, epochs: list[int]
) -> None:
    saved, _, _ = train_by_clock(codec.override(tiny_config, {**SMALL, "optim.epochs": 3}), seconds_a_save)
    assert saved == [STEPS_PER_EPOCH * epoch for epoch in epochs]


def test_a_save_request_is_served_once(tiny_config: Config) -> None:
    class SaveRequester(RecordingListener):
        def on_step(self, report: StepReport) -> None:
            self._stop.save_requested = report.step == STEPS_PER_EPOCH

    config = codec.override(tiny_config, {**SMALL, "train.validate_every": 2})
    state, stop = TrainState(config, CPU), StopRequest()
    listener = SaveRequester(stop, math.inf)
    loop = Loop(state, RecordingBatches(state), ScriptedValidator(0.5), config, NO_SAVES, listener, stop)  # type: ignore[arg-type]
    loop.run()
    assert listener.saved == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]


def test_reported_seconds_include_saves_and_earlier_parts_of_the_run(tiny_config: Config) -> None:
    config = codec.override(tiny_config, {**SMALL, "train.checkpoint_minutes": 1e-9})
    saved, epochs, seconds = train_by_clock(config, 2.0, earlier=1000.0)
    assert len(saved) == 2 * STEPS_PER_EPOCH
    # All steps, and all saves but the last.
    assert epochs[-1].seconds == seconds == 1000 + 6 * 1 + 5 * 2


class WeightSpoiler(RecordingListener):
    """Makes a weight infinite, as a non-finite gradient would, after the losses of step `at` were read."""

    def __init__(self, state: TrainState, network: str, at: int) -> None:
        super().__init__(StopRequest(), math.inf)
        self._network: nn.Module = getattr(state, network)
        self._at = at

    def on_step(self, report: StepReport) -> None:
        if report.step == self._at:
            weight = next(self._network.parameters())
            weight.data[(0,) * weight.dim()] = math.inf


@pytest.mark.parametrize("network", ["segmentor", "discriminator", "teacher"])
def test_non_finite_final_weights_are_neither_validated_nor_saved(tiny_config: Config, network: str) -> None:
    config = codec.override(tiny_config, {**SMALL, "optim.epochs": 1, "loss.teacher": 1.0, "teacher.decay": 0.9})
    state = TrainState(config, CPU)
    listener, saved = WeightSpoiler(state, network, STEPS_PER_EPOCH), list[str]()
    saver = Saver(save_last=lambda: saved.append("last"), save_best=lambda dice: saved.append("best"))
    loop = Loop(state, RecordingBatches(state), ScriptedValidator(0.5), config, saver, listener, StopRequest())  # type: ignore[arg-type]
    with pytest.raises(NotFiniteError, match=f"of the {network} are NaN or infinite after step {STEPS_PER_EPOCH}; the"):
        loop.run()
    assert saved == listener.saved == []
