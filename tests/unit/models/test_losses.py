"""Supervised and adversarial losses, compared with values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from maag.labels import IGNORE
from maag.losses import adversarial_loss, balance, discriminator_loss, partial_cross_entropy


def test_class_weights_turn_the_pixel_mean_into_the_sum_of_class_means() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, 6, 5, generator=generator)
    labels = torch.randint(0, 3, (2, 6, 5), generator=generator).to(torch.uint8)
    labels[0, :3] = IGNORE
    log_p = logits.log_softmax(dim=1)
    by_class: dict[int, list[float]] = {}
    for n, y, x in ((n, y, x) for n in range(2) for y in range(6) for x in range(5)):
        label = int(labels[n, y, x])
        if label != IGNORE:
            by_class.setdefault(label, []).append(-float(log_p[n, label, y, x]))
    balanced = sum(sum(losses) / len(losses) for losses in by_class.values())
    total = sum(map(len, by_class.values()))
    plain = sum(map(sum, by_class.values())) / total
    halfway = sum(math.sqrt(total / len(losses)) * sum(losses) for losses in by_class.values()) / total
    assert float(partial_cross_entropy(logits, labels, class_weights=1.0)) == pytest.approx(balanced, rel=1e-5)
    assert float(partial_cross_entropy(logits, labels, class_weights=0.0)) == pytest.approx(plain, rel=1e-5)
    assert float(partial_cross_entropy(logits, labels, class_weights=0.5)) == pytest.approx(halfway, rel=1e-5)


def test_pixel_weights_scale_the_gradient_of_each_pixel() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 3, 2, 4, generator=generator).requires_grad_()
    labels = torch.tensor([[[0, 1, 2, IGNORE], [0, 0, 0, 1]]], dtype=torch.uint8)
    weights = torch.tensor([[[1.0, 0.5, 0.25, 1.0], [1.0, 0.0, 1.0, 0.5]]])
    loss = partial_cross_entropy(logits, labels, class_weights=0.0, pixel_weights=weights)
    loss.backward()  # type: ignore[no-untyped-call]
    one_hot = torch.zeros_like(logits).scatter(1, labels.clamp(max=2).long()[:, None], 1.0)
    expected = (logits.detach().softmax(dim=1) - one_hot) * (weights * (labels != IGNORE))[:, None]
    torch.testing.assert_close(logits.grad, expected / 4.25)


def test_a_batch_without_labels_gives_zero_loss_and_no_nan() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = partial_cross_entropy(logits, torch.full((1, 4, 4), IGNORE, dtype=torch.uint8), class_weights=1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_least_squares_losses_match_hand_computed_values() -> None:
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.5 * 0.5 + 0.5 * 2.0)
    assert float(adversarial_loss(fake)) == pytest.approx(0.5 * 2.0)
    factor = balance(torch.tensor(3.0, requires_grad=True), torch.tensor(2.0, requires_grad=True))
    assert float(factor) == pytest.approx(1.5)
    assert not factor.requires_grad


@pytest.mark.parametrize("supervised", [0.5, 5.0, 1e4])
def test_balance_is_finite_for_a_zero_adversarial_loss(supervised: float) -> None:
    nothing = torch.tensor(0.0)
    assert balance(torch.tensor(supervised), nothing) * nothing == 0


def test_uniform_pixel_weights_change_nothing_and_zero_weights_exclude_pixels() -> None:
    logits = torch.randn(1, 3, 1, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[[0, 1, 1, IGNORE]]], dtype=torch.uint8)
    whole = torch.ones(1, 1, 4)
    for class_weights in (0.0, 0.5, 1.0):
        plain = partial_cross_entropy(logits, labels, class_weights=class_weights)
        same = partial_cross_entropy(logits, labels, class_weights=class_weights, pixel_weights=whole)
        half = partial_cross_entropy(logits, labels, class_weights=class_weights, pixel_weights=0.5 * whole)
        assert float(plain) == pytest.approx(float(same)) == pytest.approx(float(half))
        without = torch.tensor([[[1.0, 1.0, 0.0, 1.0]]])
        left_out = labels.clone()
        left_out[0, 0, 2] = IGNORE
        assert float(
            partial_cross_entropy(logits, labels, class_weights=class_weights, pixel_weights=without)
        ) == pytest.approx(float(partial_cross_entropy(logits, left_out, class_weights=class_weights)))
