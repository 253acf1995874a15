"""The losses on soft labels, compared with values computed by hand and between workers."""

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
from maag.train.unlabelled import SoftLabels, gates_loss, soft_label_loss


def soft_labels_and_logits(count: int) -> tuple[SoftLabels, Tensor]:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.randn(count, 3, 6, 5, generator=generator, dtype=torch.float64).softmax(dim=1)
    weights = torch.rand(count, 6, 5, generator=generator) < 0.6
    logits = torch.randn(count, 3, 6, 5, generator=generator, dtype=torch.float64)
    return SoftLabels(probabilities, weights), logits


def test_the_soft_label_loss_matches_hand_computed_values() -> None:
    soft_labels, logits = soft_labels_and_logits(2)
    own = logits.softmax(dim=1).permute(0, 2, 3, 1)[soft_labels.weights]
    targets = soft_labels.probabilities.permute(0, 2, 3, 1)[soft_labels.weights]
    entropy = -(targets * own.log()).sum()
    assert float(soft_cross_entropy(logits, *soft_labels)) == pytest.approx(float(entropy), rel=1e-6)
    common, sizes = class_overlaps(logits, *soft_labels)
    torch.testing.assert_close(common, (own * targets).sum(dim=0), check_dtype=False)
    torch.testing.assert_close(sizes, (own + targets).sum(dim=0), check_dtype=False)
    dice = (2 * common + 1) / (sizes + 1)
    assert float(overlap_loss(torch.stack([common, sizes]))) == pytest.approx(1 - float(dice.mean()))
    whole = float(soft_label_loss(logits, soft_labels, ALONE))
    assert whole == pytest.approx(float(entropy) / int(soft_labels.weights.sum()) + 1 - float(dice.mean()), rel=1e-6)


def test_weights_of_zero_give_no_gradient_and_no_nan() -> None:
    soft_labels, logits = soft_labels_and_logits(2)
    logits.requires_grad_()
    loss = soft_label_loss(logits, soft_labels._replace(weights=torch.zeros_like(soft_labels.weights)), ALONE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_soft_label_loss_moves_predictions_towards_the_soft_labels() -> None:
    soft_labels, logits = soft_labels_and_logits(2)
    logits.requires_grad_()
    loss = soft_label_loss(logits, soft_labels, ALONE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad.permute(0, 2, 3, 1)[~soft_labels.weights].any()
    step = (logits - 0.1 * logits.grad / logits.grad.abs().max()).detach()
    assert float(soft_label_loss(step, soft_labels, ALONE)) < loss.item()


def test_gate_maps_are_compared_with_the_mean_of_each_block_of_soft_labels() -> None:
    soft_labels, _ = soft_labels_and_logits(2)
    soft_labels = SoftLabels(soft_labels.probabilities[..., :4], soft_labels.weights[..., :4])
    maps = {level: torch.rand(2, 3, 6 // 2**level, 4 // 2**level).softmax(dim=1) for level in (0, 1)}
    expected = []
    for level, gate_map in maps.items():
        size = 2**level
        entropy, common, sizes, count = 0.0, torch.zeros(3), torch.zeros(3), 0.0
        for row in range(6):
            for column in range(4):
                for image in range(2):
                    if soft_labels.weights[image, row, column]:
                        own = gate_map[image, :, row // size, column // size]
                        target = soft_labels.probabilities[image, :, row, column].float()
                        entropy -= float((target * own.log()).sum()) / size**2
                        common += own * target / size**2
                        sizes += (own + target) / size**2
                        count += 1 / size**2
        expected.append(entropy / count + float(overlap_loss(torch.stack([common, sizes]))))
    assert float(gates_loss(maps, soft_labels, ALONE)) == pytest.approx(sum(expected) / 2, rel=1e-5)
    nothing = soft_labels._replace(weights=torch.zeros_like(soft_labels.weights))
    assert float(gates_loss(maps, nothing, ALONE)) == 0


def test_a_confidently_wrong_gate_has_finite_loss_and_gradient() -> None:
    soft_labels = SoftLabels(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool))
    gate_map = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    loss = gates_loss({0: gate_map}, soft_labels, ALONE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert gate_map.grad is not None
    assert gate_map.grad.isfinite().all()


class Half(Team):
    """One of two workers in one process, which is given the other's values."""

    def __init__(self, rank: int, others: Tensor) -> None:
        self.shard = Shard(rank, 2)
        self._others = others

    def sum(self, values: Tensor) -> Tensor:
        return values.detach() + self._others


def pooled_part(soft_labels: SoftLabels) -> SoftLabels:
    """The part that average pooling of logits over 2 x 2 pixels covers."""
    return SoftLabels(soft_labels.probabilities[..., :4], soft_labels.weights[..., :4])


def test_halves_of_a_batch_give_the_loss_and_the_gradient_of_the_whole() -> None:
    soft_labels, logits = soft_labels_and_logits(5)
    areas = Areas(torch.tensor([0.8, 0.1, 0.1]).double(), torch.tensor([0.1, 0.01, 0.02]).double(), torch.tensor(9.0))
    whole = logits.clone().requires_grad_()
    expected = (
        soft_label_loss(whole, soft_labels, ALONE),
        areas_loss(whole, areas, RunningAreas(3), 5, ALONE),
        gates_loss({1: avg_pool2d(whole, 2).softmax(dim=1)}, pooled_part(soft_labels), ALONE),
    )
    torch.stack(expected).sum().backward()  # type: ignore[no-untyped-call]
    assert whole.grad is not None
    for rank in (0, 1):
        own, other = Shard(rank, 2), Shard(1 - rank, 2)
        recorded: list[Tensor] = []

        class RecordingTeam(Team):
            shard = other

            def sum(self, values: Tensor, recorded: list[Tensor] = recorded) -> Tensor:
                recorded.append(values.detach())
                return values.detach()

        soft_label_loss(other.of(logits), SoftLabels(*map(other.of, soft_labels)), RecordingTeam())
        areas_loss(other.of(logits), areas, RunningAreas(3), 5, RecordingTeam())
        pooled = avg_pool2d(other.of(logits), 2).softmax(dim=1)
        gates_loss({1: pooled}, SoftLabels(*map(other.of, pooled_part(soft_labels))), RecordingTeam())
        part = own.of(logits).clone().requires_grad_()
        losses = (
            soft_label_loss(part, SoftLabels(*map(own.of, soft_labels)), Half(rank, recorded[0])),
            areas_loss(part, areas, RunningAreas(3), 5, Half(rank, recorded[1])),
            gates_loss(
                {1: avg_pool2d(part, 2).softmax(dim=1)},
                SoftLabels(*map(own.of, pooled_part(soft_labels))),
                Half(rank, recorded[2]),
            ),
        )
        assert [loss.item() for loss in losses] == pytest.approx([loss.item() for loss in expected])
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        assert part.grad is not None
        torch.testing.assert_close(part.grad / 2, own.of(whole.grad))  # the mean over two workers
