"""What the segmentor and the discriminator minimise. Tensors only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from maag.labels import IGNORE

REAL = 1.0
FAKE = -1.0
_SMOOTH_PX = 1.0
"""Added to both sides of a Dice, so that a class that is nowhere has 1."""


def class_counts(labels: Tensor, num_classes: int, pixel_weights: Tensor | None = None) -> Tensor:
    """Labelled pixels of each class: (N, H, W) uint8 labels, IGNORE left out, to (num_classes,) float.

    With `pixel_weights` (N, H, W) each pixel counts as much as it weighs.
    """
    classes = torch.arange(num_classes, device=labels.device, dtype=labels.dtype)
    members = labels.flatten()[None] == classes[:, None]
    if pixel_weights is None:
        return members.sum(dim=1).float()
    return (members * pixel_weights.flatten()[None]).sum(dim=1)


def balancing_weights(counts: Tensor, power: float) -> Tensor:
    """Class weights (n_total / n_class) ** `power` of (num_classes,) counts; 0 for a class that is not there."""
    there = counts > 0
    return torch.where(there, (counts.sum() / torch.where(there, counts, 1.0)).pow(power), 0.0)


def partial_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: float,
    pixel_weights: Tensor | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    """Mean weighted cross-entropy over the labelled pixels (paper eq. 1).

    With weights n_total / n_class the mean over pixels is the sum over classes of each class's own mean, so a thin
    scribble counts as much as a wide background. With smaller powers of them classes that were drawn more count more.

    Args:
        logits: (N, num_classes, H, W) float.
        labels: (N, H, W) uint8, IGNORE where nothing is known.
        class_weights: power of this batch's `balancing_weights`: 1 is the paper's, with 0 all pixels weigh alike.
        pixel_weights: (N, H, W) float in [0, 1], how much each label counts; None when all count alike.
        counts: `class_counts` of the whole batch, where `labels` are only a part of it: the parts' losses then sum up
            to the whole batch's.

    Returns:
        Scalar; 0 when no pixel is labelled.
    """
    if counts is None:
        counts = class_counts(labels, logits.shape[1], pixel_weights)
    weights = balancing_weights(counts, class_weights) if class_weights else None
    total = counts.sum()
    if pixel_weights is None:
        summed = cross_entropy(logits.float(), labels.long(), weight=weights, ignore_index=IGNORE, reduction="sum")
    else:
        each = cross_entropy(logits.float(), labels.long(), weight=weights, ignore_index=IGNORE, reduction="none")
        summed = (each * pixel_weights).sum()
    return summed / torch.where(total > 0, total, 1.0)


def discriminator_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Least squares: real masks towards +1, predictions towards -1 (paper eq. 4). Scores (N,) to a scalar."""
    return 0.5 * (on_real - REAL).square().mean() + 0.5 * (on_fake - FAKE).square().mean()


def adversarial_loss(on_fake: Tensor) -> Tensor:
    """Least squares, the segmentor's side: predictions towards +1 (paper eq. 5). Scores (N,) to a scalar."""
    return 0.5 * (on_fake - REAL).square().mean()


def balance(supervised: Tensor, adversarial: Tensor) -> Tensor:
    """Scalar that brings the adversarial loss to the supervised loss's size; no gradient flows through it."""
    return (supervised / adversarial.clamp(min=torch.finfo(adversarial.dtype).eps)).abs().detach()


def soft_cross_entropy(logits: Tensor, targets: Tensor, taught: Tensor) -> Tensor:
    """Sum of the cross-entropy with soft labels over some pixels.

    Args:
        logits: (N, num_classes, H, W) float.
        targets: (N, num_classes, H, W) float, probabilities.
        taught: (N, H, W) bool, the pixels, or float, how much each counts.

    Returns:
        Scalar.
    """
    entropy: Tensor = -(targets * logits.float().log_softmax(dim=1) * taught[:, None]).sum()
    return entropy


def class_overlaps(logits: Tensor, targets: Tensor, taught: Tensor) -> Tensor:
    """What a soft Dice is made of, for the arguments of `soft_cross_entropy`.

    Returns:
        (2, num_classes): the common size of prediction and target, and the sum of their sizes.
    """
    predicted = logits.float().softmax(dim=1)
    products = torch.stack([predicted * targets, predicted + targets])
    return (products * taught[:, None]).sum(dim=(1, 3, 4))


def overlap_loss(overlaps: Tensor) -> Tensor:
    """One minus the mean soft Dice of the classes, from the (2, num_classes) `class_overlaps` of a whole batch."""
    common, sizes = overlaps
    dice: Tensor = (2 * common + _SMOOTH_PX) / (sizes + _SMOOTH_PX)
    return 1 - dice.mean()


def area_loss(predicted: Tensor, mean: Tensor, tolerance: Tensor) -> Tensor:
    """Mean over foreground classes of the squared relative distance of an area from its plausible interval.

    Args:
        predicted: (num_classes,) float, each class's part of a batch.
        mean: (num_classes,) float, middle of the interval.
        tolerance: (num_classes,) float, half its length.

    Returns:
        Scalar; 0 within the intervals.
    """
    outside = ((predicted - mean).abs() - tolerance).clamp(min=0)
    there = mean > 0
    relative = torch.where(there, outside / torch.where(there, mean, 1.0), 0.0)
    return relative[1:].square().mean()
