"""What pixels without any label teach the segmentor, beside the discriminator's verdict.

An average of the segmentor's weights, the teacher, or what finished models said before the first step, says softly what
it is sure of, to the prediction and to the gates, and unpaired masks say how large each class may be in a batch.
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

_LEAST_LIKELY = 1e-6
"""Below this a gate's map draws no gradient through its logarithm, which would have no bound."""


def unlabelled_terms(state: TrainState, output: SegmentorOutput, batch: Batch, config: Config) -> dict[str, Tensor]:
    """The weighted terms of this worker, by name; none where they have no weight.

    Args:
        state: whose teacher is used where the batch brings no lesson, and `trust`, which all terms gain weight with.
        output: of the batch's supervised slices, then of its unlabelled ones; M in all.
        batch: what they are of.
        config: weights.

    Returns:
        Scalars, each the whole batch's value; the mean of their gradients over the workers is the whole batch's.
    """
    terms = {}
    lesson = _lesson(state, batch, config.teacher.confidence)
    if lesson is not None:
        weight = config.loss.teacher * state.trust
        terms["teacher"] = weight * lesson_loss(output.logits, beside_labels(lesson, batch.labels), state.team)
        if config.teacher.gates and output.gate_maps:
            terms["gates"] = config.teacher.gates * weight * gates_loss(output.gate_maps, lesson, state.team)
    if batch.areas is not None and state.areas is not None:
        num_slices = config.optim.batch_size * (1 if batch.unlabelled is None else 2)
        distance = areas_loss(output.logits, batch.areas, state.areas, num_slices, state.team)
        terms["areas"] = config.loss.areas * state.trust * distance
    return terms


def _lesson(state: TrainState, batch: Batch, confidence: float) -> Lesson | None:
    if batch.soft_labels is not None:
        return sure_part(batch.soft_labels, confidence)
    if state.lecturer is not None and batch.teacher_view is not None:
        return teach(state.lecturer, batch.teacher_view, confidence)
    return None


class Lesson(NamedTuple):
    """What a teacher says of M slices."""

    probabilities: Tensor
    """(M, num_classes, H, W)."""
    taught: Tensor
    """(M, H, W) bool: where it counts, or float in [0, 1]: how much."""


def teach(teacher: nn.Module, view: TeacherView, confidence: float) -> Lesson:
    """Let the teacher look at its view of the slices, and bring what it is sure of to the batch's geometry."""
    with torch.no_grad():
        images = view.images.contiguous(memory_format=torch.channels_last)
        return sure_part(warp_probabilities(teacher(images).logits.softmax(dim=1), view.grids), confidence)


def sure_part(probabilities: Tensor, confidence: float) -> Lesson:
    """What (M, num_classes, H, W) `probabilities` teach: pixels whose likeliest class has `confidence` or more."""
    return Lesson(probabilities, probabilities.amax(dim=1) >= max(confidence, torch.finfo(probabilities.dtype).tiny))


def beside_labels(lesson: Lesson, labels: Tensor) -> Lesson:
    """The part of a lesson that no label says already; labels (N, H, W) uint8 of the first N of its slices."""
    taught = lesson.taught.clone()
    taught[: len(labels)] &= labels == IGNORE
    return lesson._replace(taught=taught)


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


def gates_loss(gate_maps: dict[int, Tensor], lesson: Lesson, team: Team) -> Tensor:
    """`lesson_loss` of the gates' maps, the mean over levels; scalar.

    Labels are no exception here, for none reaches a gate. A pixel of a map counts by how many of those that it stands
    for are taught, and is taught their mean.
    """
    losses = [
        lesson_loss(gate_map.float().clamp(min=_LEAST_LIKELY).log(), _coarser(lesson, 2**level), team)
        for level, gate_map in gate_maps.items()
    ]
    return torch.stack(losses).mean()


def _coarser(lesson: Lesson, factor: int) -> Lesson:
    weights = lesson.taught[:, None].to(lesson.probabilities.dtype)
    taught = avg_pool2d(weights, factor)
    tiny = torch.finfo(taught.dtype).tiny
    return Lesson(avg_pool2d(lesson.probabilities * weights, factor) / taught.clamp(min=tiny), taught[:, 0])
