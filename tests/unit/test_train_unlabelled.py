"""The teacher and the prior of areas: what they say, whom they move, and that workers say the same together."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.slices.areas import Areas, measure_areas
from maag.data.slices.augment import warp_probabilities
from maag.data.slices.batches import Batch, TeacherView, TrainingBatches
from maag.data.slices.shard import Shard
from maag.data.slices.supervision import supervise
from maag.data.split_making import make_split
from maag.errors import ConfigError
from maag.labels import IGNORE
from maag.losses import area_loss, class_overlaps, overlap_loss, soft_cross_entropy
from maag.train.areas import RunningAreas, areas_loss
from maag.train.state import TrainState
from maag.train.step import update
from maag.train.teacher import follow, teacher_of, warmed_up
from maag.train.team import ALONE, Team
from maag.train.unlabelled import Lesson, beside_labels, gates_loss, lesson_loss, teach

CPU = torch.device("cpu")
TAUGHT = {"teacher.decay": 0.9, "teacher.confidence": 0.0, "teacher.gates": 0.5, "loss.teacher": 1.0}


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return codec.override(tiny_config, TAUGHT)


@pytest.fixture
def batch() -> Batch:
    """Slices of which only some are labelled, shifted by half a width from what they were."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 32, 32, generator=generator)
    labels = torch.full((4, 32, 32), IGNORE, dtype=torch.uint8)
    labels[:, :4] = 0
    shifted = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).expand(4, 2, 3)
    grids = torch.nn.functional.affine_grid(shifted, [4, 1, 32, 32], align_corners=False)
    masks = torch.randint(0, 4, (4, 32, 32), generator=generator, dtype=torch.uint8)
    return Batch(images, labels, None, masks, teacher_view=TeacherView(images, grids))


def test_the_average_forgets_its_start_and_keeps_its_statistics(config: Config, batch: Batch) -> None:
    state = TrainState(config, CPU)
    assert state.teacher is not None
    assert state.product is state.teacher
    assert not state.teacher.training
    for left, right in zip(state.teacher.parameters(), state.segmentor.parameters(), strict=True):
        assert torch.equal(left, right)
    with torch.no_grad():
        for tensor in (*state.segmentor.parameters(), *state.segmentor.buffers()):
            tensor.fill_(1)
        for tensor in (*state.teacher.parameters(), *state.teacher.buffers()):
            tensor.fill_(0)
    follow(state.teacher, state.segmentor, 0.75)
    follow(state.teacher, state.segmentor, 0.75)
    for name, tensor in state.teacher.state_dict().items():
        expected = 1.0 if name.endswith("num_batches_tracked") else 1 - 0.75**2
        assert (tensor == expected).all(), name
    assert [warmed_up(0.99, step) for step in (0, 8, 10**6)] == [0.1, 0.5, 0.99]


def test_no_gradient_reaches_the_teacher_and_each_step_moves_it(config: Config, batch: Batch) -> None:
    state = TrainState(config, CPU)
    assert state.teacher is not None
    state.set_rates(1e-3, 1e-3)
    before = copy.deepcopy(state.teacher.state_dict())
    losses = update(state, batch, config)
    assert set(losses) == {"supervised", "teacher", "gates", "adversarial", "discriminator"}
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in state.teacher.parameters())
    decay = warmed_up(0.9, 0)
    for name, tensor in state.segmentor.named_parameters():
        expected = decay * before[name] + (1 - decay) * tensor.detach()
        torch.testing.assert_close(state.teacher.state_dict()[name], expected)


def test_the_teacher_teaches_what_it_is_sure_of_where_no_label_is_and_it_could_see(
    config: Config, batch: Batch
) -> None:
    teacher = teacher_of(TrainState(config, CPU).segmentor)
    assert batch.teacher_view is not None
    everything = teach(teacher, batch.teacher_view, confidence=0.0)
    assert everything.taught[:, :4, :16].all()
    beside = beside_labels(everything, batch.labels).taught
    assert not beside[:, :4].any()
    assert torch.equal(beside[:, 4:], everything.taught[:, 4:])
    assert everything.taught[:, 4:, :16].all()
    assert not everything.taught[:, :, 17:].any()  # from outside
    seen = teacher(batch.teacher_view.images).logits.softmax(dim=1)
    torch.testing.assert_close(everything.probabilities[..., :15], seen[..., 16:31], atol=1e-5, rtol=0)
    some = teach(teacher, batch.teacher_view, confidence=0.4)
    assert torch.equal(some.taught, everything.taught & (some.probabilities.amax(dim=1) >= 0.4))
    assert 0 < int(some.taught.sum()) < int(everything.taught.sum())
    assert not teach(teacher, batch.teacher_view, confidence=0.999).taught.any()


def lesson_and_logits(count: int) -> tuple[Lesson, Tensor]:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.randn(count, 3, 6, 5, generator=generator, dtype=torch.float64).softmax(dim=1)
    taught = torch.rand(count, 6, 5, generator=generator) < 0.6
    logits = torch.randn(count, 3, 6, 5, generator=generator, dtype=torch.float64)
    return Lesson(probabilities, taught), logits


def test_the_lesson_by_hand() -> None:
    lesson, logits = lesson_and_logits(2)
    own = logits.softmax(dim=1).permute(0, 2, 3, 1)[lesson.taught]
    targets = lesson.probabilities.permute(0, 2, 3, 1)[lesson.taught]
    entropy = -(targets * own.log()).sum()
    assert float(soft_cross_entropy(logits, *lesson)) == pytest.approx(float(entropy), rel=1e-6)
    common, sizes = class_overlaps(logits, *lesson)
    torch.testing.assert_close(common, (own * targets).sum(dim=0), check_dtype=False)
    torch.testing.assert_close(sizes, (own + targets).sum(dim=0), check_dtype=False)
    dice = (2 * common + 1) / (sizes + 1)
    assert float(overlap_loss(torch.stack([common, sizes]))) == pytest.approx(1 - float(dice.mean()))
    whole = float(lesson_loss(logits, lesson, ALONE))
    assert whole == pytest.approx(float(entropy) / int(lesson.taught.sum()) + 1 - float(dice.mean()), rel=1e-6)


def test_nothing_taught_is_no_gradient_and_no_nan() -> None:
    lesson, logits = lesson_and_logits(2)
    logits.requires_grad_()
    loss = lesson_loss(logits, lesson._replace(taught=torch.zeros_like(lesson.taught)), ALONE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_lesson_draws_predictions_towards_it() -> None:
    lesson, logits = lesson_and_logits(2)
    logits.requires_grad_()
    loss = lesson_loss(logits, lesson, ALONE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad.permute(0, 2, 3, 1)[~lesson.taught].any()
    step = (logits - 0.1 * logits.grad / logits.grad.abs().max()).detach()
    assert float(lesson_loss(step, lesson, ALONE)) < loss.item()


def test_gates_are_taught_the_mean_of_what_each_pixel_of_a_map_stands_for() -> None:
    lesson, _ = lesson_and_logits(2)
    lesson = Lesson(lesson.probabilities[..., :4], lesson.taught[..., :4])
    maps = {level: torch.rand(2, 3, 6 // 2**level, 4 // 2**level).softmax(dim=1) for level in (0, 1)}
    expected = []
    for level, gate_map in maps.items():
        size = 2**level
        entropy, common, sizes, count = 0.0, torch.zeros(3), torch.zeros(3), 0.0
        for row in range(6):
            for column in range(4):
                for image in range(2):
                    if lesson.taught[image, row, column]:
                        own = gate_map[image, :, row // size, column // size]
                        target = lesson.probabilities[image, :, row, column].float()
                        entropy -= float((target * own.log()).sum()) / size**2
                        common += own * target / size**2
                        sizes += (own + target) / size**2
                        count += 1 / size**2
        expected.append(entropy / count + float(overlap_loss(torch.stack([common, sizes]))))
    assert float(gates_loss(maps, lesson, ALONE)) == pytest.approx(sum(expected) / 2, rel=1e-5)
    nothing = lesson._replace(taught=torch.zeros_like(lesson.taught))
    assert float(gates_loss(maps, nothing, ALONE)) == 0


def test_a_gate_that_is_surely_wrong_is_drawn_no_further_than_numbers_go() -> None:
    lesson = Lesson(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool))
    gate_map = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    loss = gates_loss({0: gate_map}, lesson, ALONE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert gate_map.grad is not None
    assert gate_map.grad.isfinite().all()


class Half(Team):
    """One of two workers in one process, who knows what the other has."""

    def __init__(self, rank: int, others: Tensor) -> None:
        self.shard = Shard(rank, 2)
        self._others = others

    def sum(self, values: Tensor) -> Tensor:
        return values.detach() + self._others


def seen(lesson: Lesson) -> Lesson:
    """Its part that an average over two by two pixels of logits can be compared with."""
    return Lesson(lesson.probabilities[..., :4], lesson.taught[..., :4])


def test_halves_of_a_batch_give_the_loss_and_the_gradient_of_the_whole() -> None:
    lesson, logits = lesson_and_logits(5)
    areas = Areas(torch.tensor([0.8, 0.1, 0.1]).double(), torch.tensor([0.1, 0.01, 0.02]).double(), torch.tensor(9.0))
    whole = logits.clone().requires_grad_()
    expected = (
        lesson_loss(whole, lesson, ALONE),
        areas_loss(whole, areas, RunningAreas(3), 5, ALONE),
        gates_loss({1: avg_pool2d(whole, 2).softmax(dim=1)}, seen(lesson), ALONE),
    )
    torch.stack(expected).sum().backward()  # type: ignore[no-untyped-call]
    assert whole.grad is not None
    for rank in (0, 1):
        own, other = Shard(rank, 2), Shard(1 - rank, 2)
        told: list[Tensor] = []

        class Listening(Team):
            shard = other

            def sum(self, values: Tensor, told: list[Tensor] = told) -> Tensor:
                told.append(values.detach())
                return values.detach()

        lesson_loss(other.of(logits), Lesson(*map(other.of, lesson)), Listening())
        areas_loss(other.of(logits), areas, RunningAreas(3), 5, Listening())
        pooled = avg_pool2d(other.of(logits), 2).softmax(dim=1)
        gates_loss({1: pooled}, Lesson(*map(other.of, seen(lesson))), Listening())
        part = own.of(logits).clone().requires_grad_()
        losses = (
            lesson_loss(part, Lesson(*map(own.of, lesson)), Half(rank, told[0])),
            areas_loss(part, areas, RunningAreas(3), 5, Half(rank, told[1])),
            gates_loss(
                {1: avg_pool2d(part, 2).softmax(dim=1)}, Lesson(*map(own.of, seen(lesson))), Half(rank, told[2])
            ),
        )
        assert [loss.item() for loss in losses] == pytest.approx([loss.item() for loss in expected])
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        assert part.grad is not None
        torch.testing.assert_close(part.grad / 2, own.of(whole.grad))  # the mean over two workers


def test_areas_are_those_of_the_masks_as_parts_of_all_that_predictions_have() -> None:
    masks = np.zeros((3, 4, 5), np.uint8)
    masks[0, 0] = 1
    masks[1, 0, :2] = 2
    masks[1, 3] = IGNORE
    masks[2] = 3
    found = measure_areas(masks, np.array([0, 1]), 3)
    torch.testing.assert_close(found.mean, torch.tensor([(0.75 + 13 / 20) / 2, 0.125, 1 / 20]))
    torch.testing.assert_close(found.spread, torch.tensor([(0.75 - 13 / 20) / 2, 0.125, 1 / 20]))


def test_areas_cost_only_outside_of_what_is_plausible() -> None:
    mean, tolerance = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.0, 0.05, 0.02])
    within = torch.tensor([0.73, 0.16, 0.11], requires_grad=True)
    assert area_loss(within, mean, tolerance).item() == 0
    for predicted, sign in (([0.5, 0.35, 0.11], 1.0), ([0.8, 0.05, 0.11], -1.0)):
        areas = torch.tensor(predicted, requires_grad=True)
        loss = area_loss(areas, mean, tolerance)
        assert loss.item() == pytest.approx((0.1 / 0.2) ** 2 / 2, rel=1e-5)
        loss.backward()  # type: ignore[no-untyped-call]
        assert areas.grad is not None
        assert torch.sign(areas.grad).tolist() == [0.0, sign, 0.0]


def test_a_class_that_no_mask_has_costs_nothing() -> None:
    mean, tolerance = torch.tensor([0.9, 0.1, 0.0]), torch.zeros(3)
    areas = torch.tensor([0.7, 0.2, 0.1], requires_grad=True)
    loss = area_loss(areas, mean, tolerance)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(1 / 2)
    assert areas.grad is not None
    assert areas.grad.tolist() == pytest.approx([0.0, 10.0, 0.0])


def test_many_batches_say_more_than_one() -> None:
    running = RunningAreas(2)
    values, weights = [torch.tensor([0.9 - 0.01 * number, 0.1 + 0.01 * number]) for number in range(30)], []
    for value in values:
        mean, num_batches = running.take_in(value)
        weights = [0.98 * weight for weight in weights] + [1.0]
        expected = sum(weight * value for weight, value in zip(weights, values, strict=False)) / sum(weights)
        torch.testing.assert_close(mean, expected)
        assert float(num_batches) == pytest.approx(sum(weights) ** 2 / sum(weight**2 for weight in weights), rel=1e-5)
    assert set(running.state_dict()) == {"total", "weight"}


def test_a_bias_that_one_batch_hides_is_seen_in_many() -> None:
    areas = Areas(torch.tensor([0.9, 0.1]), torch.tensor([0.1, 0.1]), torch.tensor(1e6))
    running = RunningAreas(2)
    # Four fifths of what masks have, well within the spread of four slices.
    logits = torch.tensor([0.92, 0.08]).log()[None, :, None, None].expand(4, 2, 8, 8)
    losses = []
    for _ in range(150):
        given = logits.clone().requires_grad_()
        loss = areas_loss(given, areas, running, 4, ALONE)
        losses.append(loss.item())
    assert losses[0] == 0.0
    assert losses[-1] > 0
    loss.backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert (given.grad[:, 1] < 0).all()  # more of the class that is too small


def test_areas_that_are_too_large_shrink(tiny_config: Config, prepared: PreparedData) -> None:
    config = codec.override(tiny_config, {"loss.areas": 1.0, "loss.adversarial": 0, "loss.supervised": 0})
    split = make_split(prepared.patients, config.data)
    batch = TrainingBatches(supervise(prepared, split, config), config, CPU).at(0)
    assert batch.masks is None  # no discriminator is needed for it
    state = TrainState(config, CPU)
    state.set_rates(3e-3, 0.0)
    losses = [float(update(state, batch, config)["areas"]) for _ in range(50)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_teacher_sees_all_slices_as_they_were(config: Config, prepared: PreparedData) -> None:
    changes = {"loss.adversarial_unlabelled": 0.1, "augment.elastic": 0.02, "augment.cutout": 0.5, "augment.noise": 1.0}
    seeing = codec.override(config, changes)
    supervision = supervise(prepared, make_split(prepared.patients, seeing.data), seeing)
    batch = TrainingBatches(supervision, seeing, CPU).at(2)
    assert batch.teacher_view is not None
    known = {image.tobytes() for image in prepared.images}
    assert len(batch.teacher_view.images) == 8
    assert {image.numpy().tobytes() for image in batch.teacher_view.images} <= known
    parts = [TrainingBatches(supervision, seeing, CPU, Shard(rank, 2)).at(2).teacher_view for rank in range(2)]
    for rank, part in enumerate(parts):
        assert part is not None
        expected = torch.cat([Shard(rank, 2).of(batch.teacher_view.grids[half]) for half in (slice(4), slice(4, 8))])
        assert torch.equal(part.grids, expected)


def test_what_the_teacher_says_of_turned_slices_lies_where_they_were(config: Config, prepared: PreparedData) -> None:
    wide = {
        "data.size_px": [32, 48],
        "loss.adversarial_unlabelled": 0.1,
        "augment.interpolation": "cubic",
        "augment.elastic": 0.02,
    }
    seeing = codec.override(config, wide)
    supervision = supervise(prepared, make_split(prepared.patients, seeing.data), seeing)
    shape = (len(prepared.images), 32, 48)
    coarse = torch.randn(shape[0], 1, 3, 4, generator=torch.Generator().manual_seed(0))
    supervision = dataclasses.replace(
        supervision,
        images=interpolate(coarse, size=shape[1:], mode="bicubic", align_corners=False).numpy(),
        scribbles=np.zeros(shape, dtype=np.uint8),
        masks=np.zeros(shape, dtype=np.uint8),
        shapes=np.zeros(shape, dtype=np.uint8),
    )
    plain = TrainingBatches(supervision, seeing, CPU).at(2).teacher_view
    turning = codec.override(seeing, {"teacher.rotation_deg": 60.0})
    turned = TrainingBatches(supervision, turning, CPU).at(2).teacher_view
    assert plain is not None
    assert turned is not None
    # Half of the slices, for the draws of the unlabelled ones come after the angles.
    expected = warp_probabilities(plain.images[:4], plain.grids[:4])
    found = warp_probabilities(turned.images[:4], turned.grids[:4])
    assert not torch.allclose(plain.images[:4], turned.images[:4], atol=0.1)
    inside = (turned.grids[:4].abs().amax(dim=3) < 0.9) & (plain.grids[:4].abs().amax(dim=3) < 0.9)
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(found[:, 0][inside], expected[:, 0][inside], atol=0.03, rtol=0)

    parts = [TrainingBatches(supervision, turning, CPU, Shard(rank, 2)).at(2).teacher_view for rank in range(2)]
    for rank, part in enumerate(parts):
        assert part is not None
        for whole, own in zip(turned, part, strict=True):
            torch.testing.assert_close(
                own, torch.cat([Shard(rank, 2).of(whole[half]) for half in (slice(4), slice(4, 8))])
            )


def test_a_lesson_needs_a_teacher(tiny_config: Config) -> None:
    with pytest.raises(ConfigError, match=r"loss.teacher=1 needs teacher.decay above 0"):
        codec.override(tiny_config, {"loss.teacher": 1.0})
