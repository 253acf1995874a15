"""What the segmentor and the discriminator minimise. Tensors only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from maag.labels import IGNORE

REAL = 1.0
FAKE = -1.0


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Labelled pixels of each class: (N, H, W) uint8 labels, IGNORE left out, to (num_classes,) float."""
    classes = torch.arange(num_classes, device=labels.device, dtype=labels.dtype)
    return (labels.flatten()[None] == classes[:, None]).sum(dim=1).float()


def balancing_weights(counts: Tensor) -> Tensor:
    """Class weights n_total / n_class of (num_classes,) counts; 0 for a class that is not there."""
    return torch.where(counts > 0, counts.sum() / counts.clamp(min=1), torch.zeros_like(counts))


def partial_cross_entropy(logits: Tensor, labels: Tensor, *, class_weights: bool) -> Tensor:
    """Mean weighted cross-entropy over the labelled pixels (paper eq. 1).

    With weights n_total / n_class the mean over pixels is the sum over classes of each class's own mean, so a thin
    scribble counts as much as a wide background.

    Args:
        logits: (N, num_classes, H, W) float.
        labels: (N, H, W) uint8, IGNORE where nothing is known.
        class_weights: weigh by `balancing_weights` of this batch, else all alike.

    Returns:
        Scalar; 0 when no pixel is labelled.
    """
    counts = class_counts(labels, logits.shape[1])
    weights = balancing_weights(counts) if class_weights else None
    summed = cross_entropy(logits.float(), labels.long(), weight=weights, ignore_index=IGNORE, reduction="sum")
    return summed / counts.sum().clamp(min=1)


def discriminator_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Least squares: real masks towards +1, predictions towards -1 (paper eq. 4). Scores (N,) to a scalar."""
    return 0.5 * (on_real - REAL).square().mean() + 0.5 * (on_fake - FAKE).square().mean()


def adversarial_loss(on_fake: Tensor) -> Tensor:
    """Least squares, the segmentor's side: predictions towards +1 (paper eq. 5). Scores (N,) to a scalar."""
    return 0.5 * (on_fake - REAL).square().mean()


def balance(supervised: Tensor, adversarial: Tensor) -> Tensor:
    """Factor that brings the adversarial loss to the supervised loss's size; no gradient flows through it."""
    return (supervised / adversarial.clamp(min=torch.finfo(adversarial.dtype).tiny)).abs().detach()
