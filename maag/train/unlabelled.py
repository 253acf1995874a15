"""Loss terms on pixels without a label, beside the adversarial one.

Soft labels come from the teacher, which is a running average of the segmentor, or from finished models that predicted
them before the first step; they supervise the prediction and the gate maps. Unpaired masks bound the area of a class.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from maag.config.schema import Config
from maag.data.slices.augment import warp_probabilities
from maag.data.slices.batches import Batch, TeacherView
from maag.labels import IGNORE
from maag.losses import class_overlaps, overlap_loss, soft_cross_entropy
from maag.models.segmentor import SegmentorOutput
from maag.train.areas import areas_loss, of_whole_batch
from maag.train.state import TrainState
from maag.train.team import Team

_MIN_PROBABILITY = 1e-6
"""Gate probabilities are clamped to it, because the gradient of their logarithm has no bound."""


def unlabelled_terms(state: TrainState, output: SegmentorOutput, batch: Batch, config: Config) -> dict[str, Tensor]:
    """The weighted terms of this worker by name; terms of weight 0 are left out.

    Args:
        state: its teacher is used where the batch has no soft labels; all terms are scaled by its `ramp`.
        output: of the batch's supervised slices, then of its unlabelled ones; M in all.
        batch: the slices of `output`.
        config: the weights.

    Returns:
        Scalars, each the whole batch's value; the mean of their gradients over the workers is the whole batch's.
    """
    terms = {}
    soft_labels = _soft_labels(state, batch, config.teacher.confidence)
    if soft_labels is not None:
        weight = config.loss.teacher * state.ramp
        outside_labels = exclude_labelled(soft_labels, batch.labels)
        terms["teacher"] = weight * soft_label_loss(output.logits, outside_labels, state.team)
        if config.teacher.gates and output.gate_maps:
            terms["gates"] = config.teacher.gates * weight * gates_loss(output.gate_maps, soft_labels, state.team)
    if batch.areas is not None and state.areas is not None:
        num_slices = config.optim.batch_size * (1 if batch.unlabelled is None else 2)
        distance = areas_loss(output.logits, batch.areas, state.areas, num_slices, state.team)
        terms["areas"] = config.loss.areas * state.ramp * distance
    return terms


def _soft_labels(state: TrainState, batch: Batch, confidence: float) -> SoftLabels | None:
    if batch.soft_labels is not None:
        return confident_labels(batch.soft_labels, confidence)
    if state.accelerated_teacher is not None and batch.teacher_view is not None:
        return teacher_labels(state.accelerated_teacher, batch.teacher_view, confidence)
    return None


class SoftLabels(NamedTuple):
    """A teacher's class probabilities for M slices, and how much each pixel counts."""

    probabilities: Tensor
    """(M, num_classes, H, W) float in [0, 1]."""
    weights: Tensor
    """(M, H, W) bool, or float in [0, 1]."""


def teacher_labels(teacher: nn.Module, view: TeacherView, confidence: float) -> SoftLabels:
    """Soft labels from the teacher's view of the slices, warped to the geometry of the batch; no gradient."""
    with torch.no_grad():
        images = view.images.contiguous(memory_format=torch.channels_last)
        return confident_labels(warp_probabilities(teacher(images).logits.softmax(dim=1), view.grids), confidence)


def confident_labels(probabilities: Tensor, confidence: float) -> SoftLabels:
    """Soft labels from (M, num_classes, H, W) `probabilities`: pixels whose highest is at least `confidence` count."""
    # Pixels from outside a slice have probabilities of 0, and never count.
    threshold = max(confidence, torch.finfo(probabilities.dtype).tiny)
    return SoftLabels(probabilities, probabilities.amax(dim=1) >= threshold)


def exclude_labelled(soft_labels: SoftLabels, labels: Tensor) -> SoftLabels:
    """Soft labels without the pixels that have a label; labels (N, H, W) uint8 of the first N slices."""
    weights = soft_labels.weights.clone()
    weights[: len(labels)] &= labels == IGNORE
    return soft_labels._replace(weights=weights)


def soft_label_loss(logits: Tensor, soft_labels: SoftLabels, team: Team) -> Tensor:
    """Weighted mean cross-entropy plus soft Dice loss with the soft labels of the whole batch; scalar."""
    probabilities, weights = soft_labels
    count = weights.sum().to(logits.dtype)
    own = torch.cat(
        [
            torch.stack([soft_cross_entropy(logits, probabilities, weights), count]),
            class_overlaps(logits, probabilities, weights).flatten(),
        ]
    )
    whole = of_whole_batch(own, team)
    entropy, total = whole[:2]
    loss: Tensor = entropy / total.clamp(min=1.0) + overlap_loss(whole[2:].view(2, -1))
    return loss


def gates_loss(gate_maps: dict[int, Tensor], soft_labels: SoftLabels, team: Team) -> Tensor:
    """`soft_label_loss` of the gate maps, the mean over levels; scalar.

    Pixels with a label are not left out, because labels do not supervise the gates.
    """
    losses = [
        soft_label_loss(gate_map.float().clamp(min=_MIN_PROBABILITY).log(), _pooled(soft_labels, 2**level), team)
        for level, gate_map in gate_maps.items()
    ]
    return torch.stack(losses).mean()


def _pooled(soft_labels: SoftLabels, factor: int) -> SoftLabels:
    """Weighted mean of each `factor` x `factor` block, weighted by the block's mean weight."""
    weights = soft_labels.weights[:, None].to(soft_labels.probabilities.dtype)
    pooled = avg_pool2d(weights, factor)
    tiny = torch.finfo(pooled.dtype).tiny
    return SoftLabels(avg_pool2d(soft_labels.probabilities * weights, factor) / pooled.clamp(min=tiny), pooled[:, 0])
