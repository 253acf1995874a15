"""The losses of a lesson, by hand, and that workers say the same together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from maag.data.slices.areas import Areas
from maag.data.slices.shard import Shard
from maag.losses import class_overlaps, overlap_loss, soft_cross_entropy
from maag.train.areas import RunningAreas, areas_loss
from maag.train.team import ALONE, Team
from maag.train.unlabelled import Lesson, gates_loss, lesson_loss


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
