"""The teacher: a running average of the segmentor, steadier than the segmentor at any one step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from maag.models.segmentor import Segmentor

_WARM_UP_STEPS = 10


def teacher_of(segmentor: Segmentor) -> Segmentor:
    """A copy of the segmentor in evaluation mode, whose weights no gradient reaches."""
    return copy.deepcopy(segmentor).eval().requires_grad_(False)


def warmed_up(decay: float, step: int) -> float:
    """`decay`, or less in the first steps, so that the initial weights are soon forgotten: (1 + n) / (10 + n)."""
    return min(decay, (1 + step) / (_WARM_UP_STEPS + step))


@torch.no_grad()
def follow(teacher: Segmentor, segmentor: Segmentor, decay: float) -> None:
    """Move the teacher towards the segmentor by 1 - `decay`.

    The statistics of batch normalisation are averaged as the weights are. They stay linear in those of the batches,
    so that workers may bring theirs together at any time.
    """
    own, others = _tensors(teacher), _tensors(segmentor)
    averaged = [place for place, tensor in enumerate(own) if tensor.is_floating_point()]
    torch._foreach_lerp_([own[place] for place in averaged], [others[place] for place in averaged], 1 - decay)
    counted = [place for place in range(len(own)) if place not in set(averaged)]
    torch._foreach_copy_([own[place] for place in counted], [others[place] for place in counted])


def _tensors(segmentor: Segmentor) -> list[Tensor]:
    return [*segmentor.parameters(), *segmentor.buffers()]
