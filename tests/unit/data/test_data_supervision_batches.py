"""Slices and labels in the batches of each kind of supervision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from acdc_supervision import make_supervision, without_augmentation

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.slices.batches import TrainingBatches
from maag.train.state import TrainState
from maag.train.step import update

CPU = torch.device("cpu")


def test_a_batch_depends_only_on_its_step_and_the_seed(tiny_config: Config, prepared: PreparedData) -> None:
    config = codec.override(tiny_config, {"loss.adversarial_unlabelled": 0.1})
    _, supervision = make_supervision(prepared, config)
    one, other = (TrainingBatches(supervision, config, CPU) for _ in range(2))
    other.at(3)
    for left, right in zip(one.at(7), other.at(7), strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    assert not torch.equal(one.at(7).images, one.at(8).images)
    reseeded = TrainingBatches(supervision, codec.override(config, {"train.seed": 5}), CPU)
    assert not torch.equal(one.at(7).images, reseeded.at(7).images)


def seen_slices(batches: TrainingBatches, prepared: PreparedData, steps: range) -> list[int]:
    index_of = {prepared.images[index].tobytes(): index for index in range(len(prepared.images))}
    return [index_of[image.numpy().tobytes()] for step in steps for image in batches.at(step).images]


def test_an_epoch_sees_each_slice_once(tiny_config: Config, prepared: PreparedData) -> None:
    config = without_augmentation(tiny_config, {"optim.batch_size": 1})
    _, supervision = make_supervision(prepared, config)
    batches = TrainingBatches(supervision, config, CPU)
    count = len(supervision.scribbled)
    assert batches.steps_per_epoch == count
    first, second = (seen_slices(batches, prepared, range(epoch * count, (epoch + 1) * count)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == supervision.scribbled.tolist()
    assert first != second


@pytest.mark.slow
def test_mixed_batches_hold_scribbles_then_masks(tiny_config: Config, prepared: PreparedData) -> None:
    changes = {"data.supervision": "mixed", "data.dense_fraction": 0.5, "optim.dense_ratio": 0.25}
    config = without_augmentation(tiny_config, {**changes, "optim.batch_size": 8})
    split, supervision = make_supervision(prepared, config)
    assert len(split.dense) == len(split.scribbled) == 1
    batches = TrainingBatches(supervision, config, CPU)
    batch = batches.at(0)
    assert batch.num_dense == 2
    slices = seen_slices(batches, prepared, range(1))
    assert set(slices[:6]) <= set(supervision.scribbled)
    assert set(slices[6:]) <= set(supervision.dense)
    np.testing.assert_array_equal(batch.labels[:6], prepared.scribbles[slices[:6], 0])
    np.testing.assert_array_equal(batch.labels[6:], prepared.masks[slices[6:]])
    losses = update(TrainState(config, CPU), batch, config)
    assert set(losses) == {"supervised", "scribbles", "dense", "adversarial", "discriminator"}
    twice = codec.override(config, {"loss.dense": 3.0, "loss.supervised": 2.0})
    weighted = update(TrainState(twice, CPU), batch, twice)
    assert float(weighted["supervised"]) == pytest.approx(2 * float(losses["scribbles"]) + 3 * float(losses["dense"]))


def test_only_the_adversarial_term_sees_unlabelled_patients(tiny_config: Config, prepared: PreparedData) -> None:
    changes = {"data.supervision": "semi", "data.scribbled_fraction": 0.5, "loss.adversarial_unlabelled": 0.2}
    config = without_augmentation(tiny_config, {**changes, "optim.batch_size": 1})
    _, supervision = make_supervision(prepared, config)
    assert len(supervision.unlabelled)
    batches = TrainingBatches(supervision, config, CPU)
    total = len(supervision.scribbled) + len(supervision.unlabelled)
    assert set(seen_slices(batches, prepared, range(total))) == set(supervision.scribbled)
    images = {prepared.images[index].tobytes() for index in supervision.unlabelled}
    unlabelled = [batches.at(step).unlabelled for step in range(total)]
    assert images <= {image[0].numpy().tobytes() for image in unlabelled if image is not None}


def test_a_teacher_sees_unlabelled_patients_without_an_adversarial_term(
    tiny_config: Config, prepared: PreparedData
) -> None:
    changes = {"data.supervision": "semi", "data.scribbled_fraction": 0.5, "loss.adversarial_unlabelled": 0}
    with_teacher = {
        **changes,
        "loss.teacher": 1.0,
        "teacher.decay": 0.9,
        "teacher.confidence": 0.1,
        "optim.batch_size": 1,
    }
    config = without_augmentation(tiny_config, with_teacher)
    _, supervision = make_supervision(prepared, config)
    batches = TrainingBatches(supervision, config, CPU)
    batch_images = [batches.at(step).unlabelled for step in range(len(supervision.unlabelled))]
    seen_images = {image[0].numpy().tobytes() for image in batch_images if image is not None}
    assert seen_images == {prepared.images[index].tobytes() for index in supervision.unlabelled}
    losses = update(TrainState(config, CPU), batches.at(0), config)
    assert losses["teacher"] > 0
    # Without unlabelled patients a step has no second batch.
    everyone = without_augmentation(
        tiny_config, {**with_teacher, "data.supervision": "weak", "data.scribbled_fraction": 1.0}
    )
    assert TrainingBatches(make_supervision(prepared, everyone)[1], everyone, CPU).at(0).unlabelled is None
