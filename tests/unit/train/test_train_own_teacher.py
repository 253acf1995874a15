"""A run's own teacher: its moving average, its inputs and its confident predictions."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.slices.augment import warp_probabilities
from maag.data.slices.batches import Batch, TeacherView, TrainingBatches
from maag.data.slices.shard import Shard
from maag.data.slices.supervision import supervise
from maag.data.split_making import make_split
from maag.labels import IGNORE
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.teacher import ema_copy, update_ema, warmed_up_decay
from maag.train.unlabelled import exclude_labelled, teacher_labels

CPU = torch.device("cpu")
WITH_TEACHER = {"teacher.decay": 0.9, "teacher.confidence": 0.0, "teacher.gates": 0.5, "loss.teacher": 1.0}


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return codec.override(tiny_config, WITH_TEACHER)


@pytest.fixture
def batch() -> Batch:
    """Slices with a few labelled rows, shifted by half a width from the teacher's view."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 32, 32, generator=generator)
    labels = torch.full((4, 32, 32), IGNORE, dtype=torch.uint8)
    labels[:, :4] = 0
    shifted = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).expand(4, 2, 3)
    grids = torch.nn.functional.affine_grid(shifted, [4, 1, 32, 32], align_corners=False)
    masks = torch.randint(0, 4, (4, 32, 32), generator=generator, dtype=torch.uint8)
    return Batch(images, labels, None, masks, teacher_view=TeacherView(images, grids))


def test_the_moving_average_covers_parameters_and_statistics(config: Config, batch: Batch) -> None:
    state = TrainState(config, CPU)
    assert state.teacher is not None
    assert state.eval_segmentor is state.teacher
    assert not state.teacher.training
    for left, right in zip(state.teacher.parameters(), state.segmentor.parameters(), strict=True):
        assert torch.equal(left, right)
    with torch.no_grad():
        for tensor in (*state.segmentor.parameters(), *state.segmentor.buffers()):
            tensor.fill_(1)
        for tensor in (*state.teacher.parameters(), *state.teacher.buffers()):
            tensor.fill_(0)
    update_ema(state.teacher, state.segmentor, 0.75)
    update_ema(state.teacher, state.segmentor, 0.75)
    for name, tensor in state.teacher.state_dict().items():
        expected = 1.0 if name.endswith("num_batches_tracked") else 1 - 0.75**2
        assert (tensor == expected).all(), name
    assert [warmed_up_decay(0.99, step) for step in (0, 8, 10**6)] == [0.1, 0.5, 0.99]


def test_the_teacher_gets_no_gradient_and_follows_each_step(config: Config, batch: Batch) -> None:
    state = TrainState(config, CPU)
    assert state.teacher is not None
    state.set_rates(1e-3, 1e-3)
    before = copy.deepcopy(state.teacher.state_dict())
    losses = update(state, batch, config)
    assert set(losses) == {"supervised", "teacher", "gates", "adversarial", "discriminator"}
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in state.teacher.parameters())
    decay = warmed_up_decay(0.9, 0)
    for name, tensor in state.segmentor.named_parameters():
        expected = decay * before[name] + (1 - decay) * tensor.detach()
        torch.testing.assert_close(state.teacher.state_dict()[name], expected)


def test_teacher_labels_cover_confident_unlabelled_pixels_in_view(config: Config, batch: Batch) -> None:
    teacher = ema_copy(TrainState(config, CPU).segmentor)
    assert batch.teacher_view is not None
    unfiltered = teacher_labels(teacher, batch.teacher_view, confidence=0.0)
    assert unfiltered.weights[:, :4, :16].all()
    unlabelled_weights = exclude_labelled(unfiltered, batch.labels).weights
    assert not unlabelled_weights[:, :4].any()
    assert torch.equal(unlabelled_weights[:, 4:], unfiltered.weights[:, 4:])
    assert unfiltered.weights[:, 4:, :16].all()
    assert not unfiltered.weights[:, :, 17:].any()  # outside the teacher's view
    probabilities = teacher(batch.teacher_view.images).logits.softmax(dim=1)
    torch.testing.assert_close(unfiltered.probabilities[..., :15], probabilities[..., 16:31], atol=1e-5, rtol=0)
    confident = teacher_labels(teacher, batch.teacher_view, confidence=0.4)
    assert torch.equal(confident.weights, unfiltered.weights & (confident.probabilities.amax(dim=1) >= 0.4))
    assert 0 < int(confident.weights.sum()) < int(unfiltered.weights.sum())
    assert not teacher_labels(teacher, batch.teacher_view, confidence=0.999).weights.any()


def test_the_teacher_sees_all_slices_without_augmentation(config: Config, prepared: PreparedData) -> None:
    changes = {"loss.adversarial_unlabelled": 0.1, "augment.elastic": 0.02, "augment.cutout": 0.5, "augment.noise": 1.0}
    augmented = codec.override(config, changes)
    supervision = supervise(prepared, make_split(prepared.patients, augmented.data), augmented)
    batch = TrainingBatches(supervision, augmented, CPU).at(2)
    assert batch.teacher_view is not None
    originals = {image.tobytes() for image in prepared.images}
    assert len(batch.teacher_view.images) == 8
    assert {image.numpy().tobytes() for image in batch.teacher_view.images} <= originals
    parts = [TrainingBatches(supervision, augmented, CPU, Shard(rank, 2)).at(2).teacher_view for rank in range(2)]
    for rank, part in enumerate(parts):
        assert part is not None
        expected = torch.cat([Shard(rank, 2).of(batch.teacher_view.grids[half]) for half in (slice(4), slice(4, 8))])
        assert torch.equal(part.grids, expected)


def test_teacher_probabilities_of_rotated_slices_are_rotated_back(config: Config, prepared: PreparedData) -> None:
    wide = {
        "data.size_px": [32, 48],
        "loss.adversarial_unlabelled": 0.1,
        "augment.interpolation": "cubic",
        "augment.elastic": 0.02,
    }
    without_rotation = codec.override(config, wide)
    supervision = supervise(prepared, make_split(prepared.patients, without_rotation.data), without_rotation)
    shape = (len(prepared.images), 32, 48)
    coarse = torch.randn(shape[0], 1, 3, 4, generator=torch.Generator().manual_seed(0))
    supervision = dataclasses.replace(
        supervision,
        images=interpolate(coarse, size=shape[1:], mode="bicubic", align_corners=False).numpy(),
        scribbles=np.zeros(shape, dtype=np.uint8),
        masks=np.zeros(shape, dtype=np.uint8),
        shapes=np.zeros(shape, dtype=np.uint8),
    )
    plain = TrainingBatches(supervision, without_rotation, CPU).at(2).teacher_view
    with_rotation = codec.override(without_rotation, {"teacher.rotation_deg": 60.0})
    rotated = TrainingBatches(supervision, with_rotation, CPU).at(2).teacher_view
    assert plain is not None
    assert rotated is not None
    # Half of the slices, since the unlabelled ones are drawn after the angles.
    expected = warp_probabilities(plain.images[:4], plain.grids[:4])
    found = warp_probabilities(rotated.images[:4], rotated.grids[:4])
    assert not torch.allclose(plain.images[:4], rotated.images[:4], atol=0.1)
    inside = (rotated.grids[:4].abs().amax(dim=3) < 0.9) & (plain.grids[:4].abs().amax(dim=3) < 0.9)
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(found[:, 0][inside], expected[:, 0][inside], atol=0.03, rtol=0)

    parts = [TrainingBatches(supervision, with_rotation, CPU, Shard(rank, 2)).at(2).teacher_view for rank in range(2)]
    for rank, part in enumerate(parts):
        assert part is not None
        for whole, own in zip(rotated, part, strict=True):
            torch.testing.assert_close(
                own, torch.cat([Shard(rank, 2).of(whole[half]) for half in (slice(4), slice(4, 8))])
            )
