"""What finished models say before the first step: of which slices, from which views, and how batches bring it."""

from __future__ import annotations

import dataclasses
import resource
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from maag.config import codec
from maag.config.presets import STUDENT
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.slices.augment import warp_probabilities
from maag.data.slices.batches import TrainingBatches
from maag.data.slices.shard import Shard
from maag.data.slices.supervision import SOFT_LABEL_SCALE, Supervision, supervise
from maag.data.splits import Split
from maag.errors import OutOfTimeError, StorageError, TrainingError
from maag.inference import ROTATIONS_DEG, Refinement, TorchRunner, mean_probabilities
from maag.labels import IGNORE
from maag.models.segmentor import Segmentor
from maag.train.second_stage.soft_labels import MeanOfSegmentors, predict_soft_labels
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.stopping import StopRequest
from maag.train.team import ALONE, Team

CPU = torch.device("cpu")


@pytest.fixture
def config(tiny_config: Config) -> Config:
    changes = {"teacher.decay": 0.9, "loss.teacher": 1.0, "train.precision": "fp32", **STUDENT}
    return codec.override(tiny_config, changes)


@pytest.fixture
def teachers(config: Config) -> list[Segmentor]:
    return [TrainState(codec.override(config, {"train.seed": seed}), CPU).segmentor for seed in (1, 2, 3)]


@pytest.fixture
def supervision(prepared: PreparedData, split: Split, config: Config) -> Supervision:
    return supervise(prepared, split, config)


class Asked(NamedTuple):
    """What there is to ask of."""

    prepared: PreparedData
    supervision: Supervision
    folder: Path

    def say(self, teachers: list[Segmentor], config: Config, team: Team = ALONE, **options: Any) -> NDArray[np.uint8]:
        return predict_soft_labels(teachers, self.prepared, self.supervision, config, CPU, team, self.folder, **options)


@pytest.fixture
def asked(prepared: PreparedData, supervision: Supervision, tmp_path: Path) -> Asked:
    return Asked(prepared, supervision, tmp_path)


def test_several_teachers_say_the_mean_of_what_each_says(teachers: list[Segmentor]) -> None:
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for teacher in teachers:
        teacher.eval()
    expected = torch.stack([teacher(images).logits.softmax(dim=1) for teacher in teachers]).mean(dim=0)
    torch.testing.assert_close(MeanOfSegmentors(teachers)(images).logits.softmax(dim=1), expected)


@pytest.mark.parametrize("largest_deg", [0.0, 30.0, 20.0])
def test_they_are_asked_of_turned_slices_too_and_of_those_that_train_alone(
    config: Config, teachers: list[Segmentor], asked: Asked, split: Split, largest_deg: float
) -> None:
    turning = codec.override(config, {"teacher.rotation_deg": largest_deg})
    said = asked.say(teachers, turning)
    views = Refinement(rotations=largest_deg > 0).views
    scale = largest_deg / max(ROTATIONS_DEG)
    views = tuple(view._replace(degrees=view.degrees * scale) for view in views)
    runner = TorchRunner(MeanOfSegmentors(teachers))
    seen = set()
    for case in asked.prepared.cases:
        slices = slice(case.start, case.stop)
        if case.patient_id not in split.scribbled:
            assert not said[slices].any()
            continue
        seen.add(case.patient_id)
        expected = mean_probabilities(np.array(asked.prepared.images[slices]), runner, views)
        np.testing.assert_allclose(said[slices] / SOFT_LABEL_SCALE, expected, atol=0.51 / SOFT_LABEL_SCALE)
    assert seen == set(split.scribbled)
    assert not list(asked.folder.iterdir())  # nothing that a killed run would leave


@pytest.mark.parametrize("part", ["dense", "unlabelled"])
def test_they_are_asked_of_slices_with_masks_and_without_any_label_too(
    config: Config, teachers: list[Segmentor], asked: Asked, split: Split, part: str
) -> None:
    more = asked.prepared.slices_of(split.test)
    assert set(more).isdisjoint(asked.supervision.scribbled)
    said = asked._replace(supervision=dataclasses.replace(asked.supervision, **{part: more})).say(teachers, config)
    assert said[more].any(axis=(1, 2, 3)).all()
    assert said[asked.supervision.scribbled].any(axis=(1, 2, 3)).all()


def test_workers_share_the_cases_out_and_know_all_answers(
    config: Config, teachers: list[Segmentor], asked: Asked
) -> None:
    class Half(Team):
        """One of two, whose sums are of what it has itself."""

        def __init__(self, rank: int) -> None:
            self.shard = Shard(rank, 2)
            self.sums = 0

        def sum(self, values: torch.Tensor) -> torch.Tensor:
            self.sums += 1
            return values

    halves = [Half(0), Half(1)]
    first, second = (asked.say(teachers, config, half) for half in halves)
    whole = asked.say(teachers, config)
    assert not (first.astype(bool) & second.astype(bool)).any()
    assert first.any()
    assert second.any()
    assert np.array_equal(first + second, whole)
    trains = sum(whole[case.start].any() for case in asked.prepared.cases)
    assert halves[0].sums == halves[1].sums == trains


def test_it_is_told_how_far_it_is(config: Config, teachers: list[Segmentor], asked: Asked) -> None:
    told: list[tuple[int, int]] = []
    asked.say(teachers, config, progress=lambda *at: told.append(at))
    assert told == [(done, len(told)) for done in range(1, len(told) + 1)]
    assert len(told) > 1


def test_a_time_limit_ends_the_asking_and_says_that_no_step_was_taken(
    config: Config, teachers: list[Segmentor], asked: Asked
) -> None:
    told: list[int] = []

    class AfterOne(StopRequest):
        @property
        def out_of_time(self) -> bool:
            return bool(told)

    with pytest.raises(OutOfTimeError, match=r"--max-time: .* so no step was taken; give more time, .* --resume"):
        asked.say(teachers, config, progress=lambda done, total: told.append(done), stop=AfterOne())
    assert told == [1]


def test_a_probability_that_is_not_finite_is_no_soft_label(
    config: Config, teachers: list[Segmentor], asked: Asked
) -> None:
    with torch.no_grad():
        next(teachers[1].parameters()).fill_(torch.nan)
    with pytest.raises(
        TrainingError, match=r"case \S+: the models of --teacher predict probabilities that are NaN or infinite"
    ):
        asked.say(teachers, config)


def test_how_many_slices_are_asked_at_once_changes_nothing(
    config: Config, teachers: list[Segmentor], asked: Asked
) -> None:
    turning = codec.override(config, {"teacher.rotation_deg": 30.0})
    few = asked.say(teachers, turning, slices_at_once=2).astype(int)
    assert np.abs(few - asked.say(teachers, turning)).max() <= 1  # but for rounding


def test_a_folder_without_room_is_named(config: Config, teachers: list[Segmentor], asked: Asked) -> None:
    nowhere = asked._replace(folder=asked.folder / "gone")
    with pytest.raises(StorageError, match="gone"):
        nowhere.say(teachers, config)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(asked.prepared.images) * 4 * 32 * 32 - 1, hard))
    try:
        with pytest.raises(StorageError, match=str(asked.folder)):
            asked.say(teachers, config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_batches_bring_what_was_said_to_their_geometry(config: Config, teachers: list[Segmentor], asked: Asked) -> None:
    twice = codec.override(config, {"loss.adversarial_unlabelled": 0.1, "augment.rotation_deg": 30.0})
    said = asked.say(teachers, twice)
    with_soft_labels = dataclasses.replace(asked.supervision, soft_labels=said)
    batch = TrainingBatches(with_soft_labels, twice, CPU).at(1)
    viewed = TrainingBatches(asked.supervision, twice, CPU).at(1)
    assert batch.teacher_view is None
    assert viewed.soft_labels is None
    assert batch.soft_labels is not None
    assert viewed.teacher_view is not None
    # The same slices, found by their pixels.
    by_pixels = {image.tobytes(): number for number, image in enumerate(asked.prepared.images)}
    numbers = [by_pixels[image.numpy().tobytes()] for image in viewed.teacher_view.images]
    kept = torch.from_numpy(said[numbers].astype(np.float32))
    expected = warp_probabilities(kept / kept.sum(dim=1, keepdim=True), viewed.teacher_view.grids)
    assert len(batch.soft_labels) == len(batch.images) + len(batch.unlabelled if batch.unlabelled is not None else ())
    torch.testing.assert_close(batch.soft_labels, expected)
    total = batch.soft_labels.sum(dim=1)
    inside = viewed.teacher_view.grids.abs().amax(dim=3) < 0.9
    torch.testing.assert_close(total[inside], torch.ones_like(total[inside]))

    parts = [TrainingBatches(with_soft_labels, twice, CPU, Shard(rank, 2)).at(1).soft_labels for rank in range(2)]
    for rank, part in enumerate(parts):
        halves = (slice(config.optim.batch_size), slice(config.optim.batch_size, None))
        torch.testing.assert_close(part, torch.cat([Shard(rank, 2).of(batch.soft_labels[half]) for half in halves]))


def test_who_was_asked_teaches_and_what_is_exported_is_the_own_average(
    config: Config, teachers: list[Segmentor], asked: Asked
) -> None:
    losses = {}
    for name, soft_labels in (
        ("own", None),
        ("all", asked.say(teachers, config)),
        ("one", asked.say(teachers[:1], config)),
    ):
        batch = TrainingBatches(dataclasses.replace(asked.supervision, soft_labels=soft_labels), config, CPU).at(0)
        state = TrainState(config, CPU)
        state.set_rates(1e-3, 1e-3)
        losses[name] = float(update(state, batch, config)["teacher"])
        assert state.eval_segmentor is state.teacher
    assert len(set(losses.values())) == 3


def test_what_they_are_less_sure_of_is_left_out_on_request(
    config: Config, teachers: list[Segmentor], asked: Asked
) -> None:
    strict = codec.override(config, {"teacher.confidence": 0.999})
    batch = TrainingBatches(
        dataclasses.replace(asked.supervision, soft_labels=asked.say(teachers, strict)), strict, CPU
    ).at(0)
    assert batch.soft_labels is not None
    assert (batch.labels == IGNORE).any()
    assert float(batch.soft_labels.amax()) < 0.999
    state = TrainState(strict, CPU)
    state.set_rates(1e-3, 1e-3)
    kept = update(state, batch, strict)["teacher"]
    loose = TrainState(config, CPU)
    loose.set_rates(1e-3, 1e-3)
    assert float(kept) < float(update(loose, batch, config)["teacher"])
