"""Soft labels predicted before the first step: of which slices, from which views, and how batches use them."""

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

pytestmark = pytest.mark.slow

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


class Inputs(NamedTuple):
    """The data whose soft labels are predicted, and a folder for them."""

    prepared: PreparedData
    supervision: Supervision
    folder: Path

    def predict(
        self, teachers: list[Segmentor], config: Config, team: Team = ALONE, **options: Any
    ) -> NDArray[np.uint8]:
        return predict_soft_labels(teachers, self.prepared, self.supervision, config, CPU, team, self.folder, **options)


@pytest.fixture
def inputs(prepared: PreparedData, supervision: Supervision, tmp_path: Path) -> Inputs:
    return Inputs(prepared, supervision, tmp_path)


def test_several_teachers_predict_the_mean_of_their_probabilities(teachers: list[Segmentor]) -> None:
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for teacher in teachers:
        teacher.eval()
    expected = torch.stack([teacher(images).logits.softmax(dim=1) for teacher in teachers]).mean(dim=0)
    torch.testing.assert_close(MeanOfSegmentors(teachers)(images).logits.softmax(dim=1), expected)


@pytest.mark.parametrize("largest_deg", [0.0, 20.0])
def test_teachers_predict_rotated_views_of_training_slices_only(
    config: Config, teachers: list[Segmentor], inputs: Inputs, split: Split, largest_deg: float
) -> None:
    with_rotation = codec.override(config, {"teacher.rotation_deg": largest_deg})
    soft_labels = inputs.predict(teachers, with_rotation)
    views = Refinement(rotations=largest_deg > 0).views
    scale = largest_deg / max(ROTATIONS_DEG)
    views = tuple(view._replace(degrees=view.degrees * scale) for view in views)
    runner = TorchRunner(MeanOfSegmentors(teachers))
    predicted = set()
    for case in inputs.prepared.cases:
        slices = slice(case.start, case.stop)
        if case.patient_id not in split.scribbled:
            assert not soft_labels[slices].any()
            continue
        predicted.add(case.patient_id)
        expected = mean_probabilities(np.array(inputs.prepared.images[slices]), runner, views)
        np.testing.assert_allclose(soft_labels[slices] / SOFT_LABEL_SCALE, expected, atol=0.51 / SOFT_LABEL_SCALE)
    assert predicted == set(split.scribbled)
    assert not list(inputs.folder.iterdir())  # a killed run would leave no files either


@pytest.mark.parametrize("part", ["dense", "unlabelled"])
def test_teachers_predict_dense_and_unlabelled_slices_too(
    config: Config, teachers: list[Segmentor], inputs: Inputs, split: Split, part: str
) -> None:
    added = inputs.prepared.slices_of(split.test)
    assert set(added).isdisjoint(inputs.supervision.scribbled)
    found = inputs._replace(supervision=dataclasses.replace(inputs.supervision, **{part: added})).predict(
        teachers, config
    )
    assert found[added].any(axis=(1, 2, 3)).all()
    assert found[inputs.supervision.scribbled].any(axis=(1, 2, 3)).all()


def test_workers_divide_the_cases_and_sum_their_soft_labels(
    config: Config, teachers: list[Segmentor], inputs: Inputs
) -> None:
    class Half(Team):
        """One of two workers, whose sums cover only its own values."""

        def __init__(self, rank: int) -> None:
            self.shard = Shard(rank, 2)
            self.sums = 0

        def sum(self, values: torch.Tensor) -> torch.Tensor:
            self.sums += 1
            return values

    halves = [Half(0), Half(1)]
    first, second = (inputs.predict(teachers, config, half) for half in halves)
    whole = inputs.predict(teachers, config)
    assert not (first.astype(bool) & second.astype(bool)).any()
    assert first.any()
    assert second.any()
    assert np.array_equal(first + second, whole)
    trains = sum(whole[case.start].any() for case in inputs.prepared.cases)
    assert halves[0].sums == halves[1].sums == trains


def test_prediction_reports_its_progress(config: Config, teachers: list[Segmentor], inputs: Inputs) -> None:
    reported: list[tuple[int, int]] = []
    inputs.predict(teachers, config, progress=lambda *at: reported.append(at))
    assert reported == [(done, len(reported)) for done in range(1, len(reported) + 1)]
    assert len(reported) > 1


def test_a_time_limit_ends_the_prediction_before_any_step(
    config: Config, teachers: list[Segmentor], inputs: Inputs
) -> None:
    predicted: list[int] = []

    class AfterOne(StopRequest):
        @property
        def out_of_time(self) -> bool:
            return bool(predicted)

    with pytest.raises(OutOfTimeError, match=r"--max-time: .* so no step was taken; give more time, .* --resume"):
        inputs.predict(teachers, config, progress=lambda done, total: predicted.append(done), stop=AfterOne())
    assert predicted == [1]


def test_non_finite_probabilities_are_refused(config: Config, teachers: list[Segmentor], inputs: Inputs) -> None:
    with torch.no_grad():
        next(teachers[1].parameters()).fill_(torch.nan)
    with pytest.raises(
        TrainingError, match=r"case \S+: the models of --teacher predict probabilities that are NaN or infinite"
    ):
        inputs.predict(teachers, config)


def test_slices_per_pass_do_not_change_soft_labels(config: Config, teachers: list[Segmentor], inputs: Inputs) -> None:
    with_rotation = codec.override(config, {"teacher.rotation_deg": 30.0})
    few = inputs.predict(teachers[:1], with_rotation, slices_at_once=4).astype(int)
    assert np.abs(few - inputs.predict(teachers[:1], with_rotation)).max() <= 1  # except for rounding


def test_a_missing_or_full_folder_is_reported(config: Config, teachers: list[Segmentor], inputs: Inputs) -> None:
    missing = inputs._replace(folder=inputs.folder / "gone")
    with pytest.raises(StorageError, match="gone"):
        missing.predict(teachers, config)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(inputs.prepared.images) * 4 * 32 * 32 - 1, hard))
    try:
        with pytest.raises(StorageError, match=str(inputs.folder)):
            inputs.predict(teachers, config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_soft_labels_follow_the_augmented_geometry(config: Config, teachers: list[Segmentor], inputs: Inputs) -> None:
    augmented = codec.override(config, {"loss.adversarial_unlabelled": 0.1, "augment.rotation_deg": 30.0})
    soft_labels = inputs.predict(teachers, augmented)
    with_soft_labels = dataclasses.replace(inputs.supervision, soft_labels=soft_labels)
    batch = TrainingBatches(with_soft_labels, augmented, CPU).at(1)
    viewed = TrainingBatches(inputs.supervision, augmented, CPU).at(1)
    assert batch.teacher_view is None
    assert viewed.soft_labels is None
    assert batch.soft_labels is not None
    assert viewed.teacher_view is not None
    # The same slices, found by their pixels.
    by_pixels = {image.tobytes(): number for number, image in enumerate(inputs.prepared.images)}
    numbers = [by_pixels[image.numpy().tobytes()] for image in viewed.teacher_view.images]
    kept = torch.from_numpy(soft_labels[numbers].astype(np.float32))
    expected = warp_probabilities(kept / kept.sum(dim=1, keepdim=True), viewed.teacher_view.grids)
    assert len(batch.soft_labels) == len(batch.images) + len(batch.unlabelled if batch.unlabelled is not None else ())
    torch.testing.assert_close(batch.soft_labels, expected)
    total = batch.soft_labels.sum(dim=1)
    inside = viewed.teacher_view.grids.abs().amax(dim=3) < 0.9
    torch.testing.assert_close(total[inside], torch.ones_like(total[inside]))

    parts = [TrainingBatches(with_soft_labels, augmented, CPU, Shard(rank, 2)).at(1).soft_labels for rank in range(2)]
    for rank, part in enumerate(parts):
        halves = (slice(config.optim.batch_size), slice(config.optim.batch_size, None))
        torch.testing.assert_close(part, torch.cat([Shard(rank, 2).of(batch.soft_labels[half]) for half in halves]))


def test_the_loss_depends_on_the_teachers_and_the_product_is_the_moving_average(
    config: Config, teachers: list[Segmentor], inputs: Inputs
) -> None:
    losses = {}
    for name, soft_labels in (
        ("own", None),
        ("all", inputs.predict(teachers, config)),
        ("one", inputs.predict(teachers[:1], config)),
    ):
        batch = TrainingBatches(dataclasses.replace(inputs.supervision, soft_labels=soft_labels), config, CPU).at(0)
        state = TrainState(config, CPU)
        state.set_rates(1e-3, 1e-3)
        losses[name] = float(update(state, batch, config)["teacher"])
        assert state.eval_segmentor is state.teacher
    assert len(set(losses.values())) == 3


def test_unconfident_predictions_are_left_out(config: Config, teachers: list[Segmentor], inputs: Inputs) -> None:
    strict = codec.override(config, {"teacher.confidence": 0.999})
    batch = TrainingBatches(
        dataclasses.replace(inputs.supervision, soft_labels=inputs.predict(teachers, strict)), strict, CPU
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
