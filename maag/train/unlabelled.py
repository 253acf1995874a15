"""What pixels without any label teach the segmentor, beside the discriminator's verdict.

An average of the segmentor's weights, the teacher, says softly what it is sure of, and unpaired masks say how large
each class may be in a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from maag.config.schema import Config
from maag.data.augment import warp_probabilities
from maag.data.batches import Batch
from maag.labels import IGNORE
from maag.losses import class_overlaps, overlap_loss, soft_cross_entropy
from maag.train.areas import areas_loss, of_whole_batch
from maag.train.state import TrainState
from maag.train.team import Team


def unlabelled_terms(state: TrainState, logits: Tensor, batch: Batch, config: Config) -> dict[str, Tensor]:
    """The weighted terms of this worker, by name; none where they have no weight.

    Args:
        state: whose teacher is used, and `trust`, which both terms gain weight with.
        logits: (M, num_classes, H, W) of the batch's supervised slices, then of its unlabelled ones.
        batch: what they are of.
        config: weights.

    Returns:
        Scalars, each the whole batch's value; the mean of their gradients over the workers is the whole batch's.
    """
    terms = {}
    if state.lecturer is not None and batch.teacher_view is not None:
        lesson = teach(state.lecturer, batch, config.teacher.confidence)
        terms["teacher"] = config.loss.teacher * state.trust * lesson_loss(logits, lesson, state.team)
    if batch.areas is not None and state.areas is not None:
        num_slices = config.optim.batch_size * (1 if batch.unlabelled is None else 2)
        distance = areas_loss(logits, batch.areas, state.areas, num_slices, state.team)
        terms["areas"] = config.loss.areas * state.trust * distance
    return terms


class Lesson(NamedTuple):
    """What a teacher says of M slices."""

    probabilities: Tensor
    """(M, num_classes, H, W)."""
    taught: Tensor
    """(M, H, W) bool: where it is sure, and no label says so already."""


def teach(teacher: nn.Module, batch: Batch, confidence: float) -> Lesson:
    """Let the teacher look at its view of the slices, and bring what it says to the batch's geometry."""
    assert batch.teacher_view is not None
    with torch.no_grad():
        images = batch.teacher_view.images.contiguous(memory_format=torch.channels_last)
        probabilities = warp_probabilities(teacher(images).logits.softmax(dim=1), batch.teacher_view.grids)
        taught = probabilities.amax(dim=1) >= max(confidence, torch.finfo(probabilities.dtype).tiny)
        taught[: len(batch.labels)] &= batch.labels == IGNORE
    return Lesson(probabilities, taught)


def lesson_loss(logits: Tensor, lesson: Lesson, team: Team) -> Tensor:
    """Cross-entropy and soft Dice with the lesson over the pixels that it teaches in the whole batch; scalar."""
    probabilities, taught = lesson
    count = taught.sum().to(logits.dtype)
    own = torch.cat(
        [
            torch.stack([soft_cross_entropy(logits, probabilities, taught), count]),
            class_overlaps(logits, probabilities, taught).flatten(),
        ]
    )
    whole = of_whole_batch(own, team)
    entropy, total = whole[:2]
    loss: Tensor = entropy / total.clamp(min=1.0) + overlap_loss(whole[2:].view(2, -1))
    return loss
