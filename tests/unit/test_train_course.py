"""What the loop sets before each step, and what it makes of losses, validations and requests; no data, little work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from maag.config import codec
from maag.config.schema import Config
from maag.data.slices.batches import Batch
from maag.errors import NotFiniteError
from maag.labels import IGNORE
from maag.models.segmentor import Segmentor
from maag.train.keeping import NOT_KEPT, Keeper
from maag.train.loop import Ending, Loop
from maag.train.reports import EpochReport, Live
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
    trust: float
    seed: int


@dataclass
class WatchingBatches:
    """The same images in each step; all that the loop has set by then is written down."""

    state: TrainState
    labelled_up_to: float = math.inf
    """In later steps nothing is known."""
    steps_per_epoch: int = STEPS_PER_EPOCH
    bring_lessons: bool = False
    courses: list[Course] = field(default_factory=list)

    def at(self, step: int) -> Batch:
        lr, lr_discriminator = (float(each.param_groups[0]["lr"]) for each in self.state.optimizers)
        self.courses.append(Course(lr, lr_discriminator, float(self.state.trust), self.state.noise.initial_seed()))
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
        self.glances: list[Live] = []

    def on_live(self, live: Live) -> None:
        self.glances.append(live)
        if live.step >= self._stop_at:
            self._stop.ask("test")

    def on_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def on_checkpoint(self, step: int) -> None:
        self.saved.append(step)


class Run(NamedTuple):
    ending: Ending
    courses: list[Course]
    epochs: list[EpochReport]
    saved: list[int]
    glances: list[Live]


def run_it(
    tiny_config: Config,
    changes: Mapping[str, Any],
    dices: Sequence[float] = (0.5,),
    *,
    labelled_up_to: float = math.inf,
    stop_at: float = math.inf,
    max_minutes: float | None = None,
    steps_per_epoch: int = STEPS_PER_EPOCH,
    bring_lessons: bool = False,
) -> Run:
    config = codec.override(tiny_config, {**SMALL, **changes})
    state, stop = TrainState(config, CPU), StopRequest(max_minutes)
    batches, listener = WatchingBatches(state, labelled_up_to, steps_per_epoch), Listening(stop, stop_at)
    loop = Loop(state, batches, ScriptedValidator(*dices), config, NOT_KEPT, listener, stop)  # type: ignore[arg-type]
    return Run(loop.run(), batches.courses, listener.epochs, listener.saved, listener.glances)


def test_each_step_has_noise_of_its_own_that_the_seed_decides(tiny_config: Config) -> None:
    seeds = [course.seed for course in run_it(tiny_config, {}).courses]
    assert len(set(seeds)) == len(seeds) == 2 * STEPS_PER_EPOCH
    assert [course.seed for course in run_it(tiny_config, {}).courses] == seeds
    assert set(seeds).isdisjoint(course.seed for course in run_it(tiny_config, {"train.seed": 5}).courses)


def test_trust_rises_to_its_whole_at_the_end_of_the_ramp(tiny_config: Config) -> None:
    trusts = [course.trust for course in run_it(tiny_config, {"teacher.ramp": 0.5}).courses]
    ramped = [math.exp(-5 * (1 - step / STEPS_PER_EPOCH) ** 2) for step in range(STEPS_PER_EPOCH)]
    assert trusts == pytest.approx([*ramped, *[1.0] * STEPS_PER_EPOCH])


def test_both_rates_fall_together_with_every_step(tiny_config: Config) -> None:
    rates = {"optim.schedule": "poly", "optim.lr": 1e-3, "optim.lr_min": 1e-5, "optim.lr_discriminator": 4e-4}
    courses = run_it(tiny_config, rates).courses
    whole = [1 - step / (2 * STEPS_PER_EPOCH) for step in range(2 * STEPS_PER_EPOCH)]
    factors = [0.01 + 0.99 * rest**0.9 for rest in whole]
    assert [course.lr for course in courses] == pytest.approx([1e-3 * factor for factor in factors])
    assert [course.lr_discriminator for course in courses] == pytest.approx([4e-4 * factor for factor in factors])


@pytest.mark.parametrize(("epochs", "measured"), [(4, [1, 2, 4]), (5, [1, 2, 3, 5]), (1, [1])])
def test_validations_are_as_frequent_as_each_half_of_the_run_asks(
    tiny_config: Config, epochs: int, measured: list[int]
) -> None:
    changes = {"optim.epochs": epochs, "train.validate_every": 1, "train.validate_every_late": 3 if epochs > 4 else 4}
    found = run_it(tiny_config, changes).epochs
    assert [report.epoch for report in found] == list(range(1, epochs + 1))
    assert [report.epoch for report in found if "dice" in report.to_dict()] == measured


def test_an_epoch_is_told_the_losses_of_its_own_steps(tiny_config: Config) -> None:
    first, second = run_it(tiny_config, {}, labelled_up_to=STEPS_PER_EPOCH).epochs
    assert first.losses["supervised"] > 0
    assert second.losses["supervised"] == 0


def test_the_state_is_saved_within_epochs_when_the_last_time_is_long_ago(tiny_config: Config) -> None:
    changes = {"train.validate_every": 2, "train.checkpoint_minutes": 1e-9}
    every_step = list(range(1, 2 * STEPS_PER_EPOCH + 1))
    assert run_it(tiny_config, changes).saved == every_step
    seldom = run_it(tiny_config, {**changes, "train.checkpoint_minutes": 60.0})
    assert seldom.saved == [2 * STEPS_PER_EPOCH]


def test_what_ends_at_a_validation_is_not_saved_a_second_time(tiny_config: Config) -> None:
    """A second time would be a second upload on a cluster."""
    changes = {"optim.epochs": 9, "train.patience": 2}
    early = run_it(tiny_config, changes)
    assert early.ending == "early"
    assert early.saved[-1] == 3 * STEPS_PER_EPOCH
    assert early.saved == sorted(set(early.saved))
    stopped = run_it(tiny_config, changes, stop_at=STEPS_PER_EPOCH)
    assert (stopped.ending, stopped.saved) == ("interrupted", [STEPS_PER_EPOCH])
    out_of_time = run_it(tiny_config, changes, max_minutes=0)
    assert (out_of_time.ending, out_of_time.saved) == ("time", [1])


def test_a_glance_tells_the_epoch_it_falls_into(tiny_config: Config) -> None:
    glances = run_it(tiny_config, {}, steps_per_epoch=11).glances
    assert [(live.step, live.epoch) for live in glances] == [(10, 1), (11, 1), (20, 2), (22, 2)]


def test_a_request_to_stop_at_the_last_step_finds_a_run_that_is_done(tiny_config: Config) -> None:
    assert run_it(tiny_config, {}, stop_at=2 * STEPS_PER_EPOCH).ending == "done"
    assert run_it(tiny_config, {}, stop_at=STEPS_PER_EPOCH).ending == "interrupted"


def test_a_time_limit_at_the_last_step_finds_a_run_that_is_done(tiny_config: Config) -> None:
    assert run_it(tiny_config, {}, max_minutes=0).ending == "time"
    one_step = {"optim.epochs": 1}
    assert run_it(tiny_config, one_step, steps_per_epoch=1, max_minutes=0).ending == "done"


@pytest.mark.parametrize("min_delta", [0.0, 1e-5])
def test_a_run_that_stays_where_it_is_uses_up_its_patience(tiny_config: Config, min_delta: float) -> None:
    changes = {"optim.epochs": 9, "train.patience": 2, "train.min_delta": min_delta}
    dead = run_it(tiny_config, changes, [0.0])
    assert dead.ending == "early"
    assert [report.is_best for report in dead.epochs] == [True, False, False]


def test_a_gain_gives_all_patience_back(tiny_config: Config) -> None:
    found = run_it(tiny_config, {"optim.epochs": 9, "train.patience": 2}, [0.1, 0.1, 0.2])
    assert (found.ending, len(found.epochs)) == ("early", 5)


def test_a_gain_counts_from_the_least_one_asked_for(tiny_config: Config) -> None:
    changes = {"optim.epochs": 4, "train.min_delta": 0.125}
    found = run_it(tiny_config, changes, [0.25, 0.375, 0.4375, 0.625]).epochs
    assert [report.is_best for report in found] == [True, True, False, True]


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1.0

    def __call__(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds


def timed(config: Config, seconds_a_save: float, earlier: float = 0.0) -> tuple[list[int], list[EpochReport], float]:
    """Train by a clock on which a step takes a second: the steps that were saved, the epochs, and the seconds told."""
    state, stop, clock = TrainState(config, CPU), StopRequest(), Clock()
    state.progress.seconds = earlier

    class Steady(WatchingBatches):
        def at(self, step: int) -> Batch:
            clock.move(1)
            return super().at(step)

    listener = Listening(stop, math.inf)
    keeper = Keeper(save_last=lambda: clock.move(seconds_a_save), save_best=lambda dice: None)
    loop = Loop(state, Steady(state), ScriptedValidator(0.5), config, keeper, listener, stop, clock)  # type: ignore[arg-type]
    loop.run()
    return listener.saved, listener.epochs, state.progress.seconds


@pytest.mark.parametrize(("seconds_a_save", "epochs"), [(0.2, [1, 2, 3]), (0.4, [1, 3])])
def test_a_validation_is_saved_unless_that_would_take_a_tenth_of_the_time(
    tiny_config: Config, seconds_a_save: float, epochs: list[int]
) -> None:
    saved, _, _ = timed(codec.override(tiny_config, {**SMALL, "optim.epochs": 3}), seconds_a_save)
    assert saved == [STEPS_PER_EPOCH * epoch for epoch in epochs]


def test_a_request_to_save_is_met_once(tiny_config: Config) -> None:
    class Asking(Listening):
        def on_live(self, live: Live) -> None:
            self._stop.save_is_asked = live.step == STEPS_PER_EPOCH

    config = codec.override(tiny_config, {**SMALL, "train.validate_every": 2})
    state, stop = TrainState(config, CPU), StopRequest()
    listener = Asking(stop, math.inf)
    loop = Loop(state, WatchingBatches(state), ScriptedValidator(0.5), config, NOT_KEPT, listener, stop)  # type: ignore[arg-type]
    loop.run()
    assert listener.saved == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]


def test_the_seconds_are_those_of_the_run_however_often_it_is_saved_and_resumed(tiny_config: Config) -> None:
    config = codec.override(tiny_config, {**SMALL, "train.checkpoint_minutes": 1e-9})
    saved, epochs, seconds = timed(config, 2.0, earlier=1000.0)
    assert len(saved) == 2 * STEPS_PER_EPOCH
    # All steps, and all times of saving but the last.
    assert epochs[-1].seconds == seconds == 1000 + 6 * 1 + 5 * 2


def test_the_time_left_goes_down_to_nothing(tiny_config: Config) -> None:
    first, last = run_it(tiny_config, {}).glances
    assert first.seconds_left > 0
    assert last.seconds_left == 0


class Spoiling(Listening):
    """Does to a weight what a gradient that is no number does, after the losses of step `at` were read."""

    def __init__(self, state: TrainState, network: str, at: int) -> None:
        super().__init__(StopRequest(), math.inf)
        self._network: nn.Module = getattr(state, network)
        self._at = at

    def on_live(self, live: Live) -> None:
        if live.step == self._at:
            weight = next(self._network.parameters())
            weight.data[(0,) * weight.dim()] = math.inf


@pytest.mark.parametrize("network", ["segmentor", "discriminator", "teacher"])
def test_weights_that_are_no_numbers_after_the_last_losses_are_neither_validated_nor_saved(
    tiny_config: Config, network: str
) -> None:
    config = codec.override(tiny_config, {**SMALL, "optim.epochs": 1, "loss.teacher": 1.0, "teacher.decay": 0.9})
    state = TrainState(config, CPU)
    listener, saved = Spoiling(state, network, STEPS_PER_EPOCH), list[str]()
    keeper = Keeper(save_last=lambda: saved.append("last"), save_best=lambda dice: saved.append("best"))
    loop = Loop(state, WatchingBatches(state), ScriptedValidator(0.5), config, keeper, listener, StopRequest())  # type: ignore[arg-type]
    with pytest.raises(NotFiniteError, match=f"of the {network} are NaN or infinite after step {STEPS_PER_EPOCH}; the"):
        loop.run()
    assert saved == listener.saved == []
