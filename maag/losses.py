"""The losses of the segmentor and the discriminator, as functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from maag.labels import IGNORE

REAL = 1.0
FAKE = -1.0
_SMOOTH_PX = 1.0
"""Added to numerator and denominator of a Dice, so that a class absent from both scores 1."""


def class_counts(labels: Tensor, num_classes: int, pixel_weights: Tensor | None = None) -> Tensor:
    """Number of labelled pixels of each class: (N, H, W) uint8 labels to (num_classes,) float; IGNORE is left out.

    With `pixel_weights` (N, H, W) it is the sum of their weights.
    """
    classes = torch.arange(num_classes, device=labels.device, dtype=labels.dtype)
    members = labels.flatten()[None] == classes[:, None]
    if pixel_weights is None:
        return members.sum(dim=1).float()
    return (members * pixel_weights.flatten()[None]).sum(dim=1)


def balancing_weights(counts: Tensor, power: float) -> Tensor:
    """Class weights (n_total / n_class) ** `power` from (num_classes,) counts; 0 for an absent class."""
    present = counts > 0
    return torch.where(present, (counts.sum() / torch.where(present, counts, 1.0)).pow(power), 0.0)


def partial_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: float,
    pixel_weights: Tensor | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    """Mean class-weighted cross-entropy over the labelled pixels (paper eq. 1).

    With weights n_total / n_class, the mean over pixels is the sum over classes of each class's own mean: a thin
    scribble counts as much as a wide background. With smaller powers, classes with more labelled pixels count more.

    Args:
        logits: (N, num_classes, H, W) float.
        labels: (N, H, W) uint8, IGNORE for unlabelled pixels.
        class_weights: power of the batch's `balancing_weights`: 1 as in the paper, 0 for equal pixel weights.
        pixel_weights: (N, H, W) float in [0, 1]; None weighs all pixels equally.
        counts: `class_counts` of the whole batch where `labels` are only a part of it; the losses of the parts then
            add up to that of the whole batch.

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
    """Scalar factor |supervised / adversarial| that scales the adversarial loss to the supervised one; no gradient.

    The released code scales the supervised loss by the inverse instead, which gives the same proportion.
    """
    return (supervised / adversarial.clamp(min=torch.finfo(adversarial.dtype).eps)).abs().detach()


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over pixels of the cross-entropy with soft labels.

    Args:
        logits: (N, num_classes, H, W) float.
        targets: (N, num_classes, H, W) float in [0, 1], class probabilities.
        weights: (N, H, W) bool, or float in [0, 1].

    Returns:
        Scalar.
    """
    entropy: Tensor = -(targets * logits.float().log_softmax(dim=1) * weights[:, None]).sum()
    return entropy


def class_overlaps(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Intersection and size sums of a soft Dice; the arguments are those of `soft_cross_entropy`.

    Returns:
        (2, num_classes): the intersection of prediction and target, and the sum of their sizes.
    """
    predicted = logits.float().softmax(dim=1)
    products = torch.stack([predicted * targets, predicted + targets])
    return (products * weights[:, None]).sum(dim=(1, 3, 4))


def overlap_loss(overlaps: Tensor) -> Tensor:
    """One minus the mean soft Dice over classes, from the (2, num_classes) `class_overlaps` of a whole batch."""
    intersection, sizes = overlaps
    dice: Tensor = (2 * intersection + _SMOOTH_PX) / (sizes + _SMOOTH_PX)
    return 1 - dice.mean()


def area_loss(predicted: Tensor, mean: Tensor, tolerance: Tensor) -> Tensor:
    """Mean over foreground classes of the squared relative distance of an area from its plausible interval.

    Args:
        predicted: (num_classes,) float in [0, 1], each class's fraction of the pixels.
        mean: (num_classes,) float, centre of the interval.
        tolerance: (num_classes,) float, half its width.

    Returns:
        Scalar; 0 within the intervals.
    """
    outside = ((predicted - mean).abs() - tolerance).clamp(min=0)
    present = mean > 0
    relative = torch.where(present, outside / torch.where(present, mean, 1.0), 0.0)
    return relative[1:].square().mean()
