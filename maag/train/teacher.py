"""The teacher: an exponential moving average (EMA) of the segmentor's weights (Tarvainen and Valpola, NeurIPS 2017)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from maag.models.segmentor import Segmentor

_WARM_UP_STEPS = 10


def ema_copy(segmentor: Segmentor) -> Segmentor:
    """A copy of the segmentor in evaluation mode whose weights need no gradient."""
    return copy.deepcopy(segmentor).eval().requires_grad_(False)


def warmed_up_decay(decay: float, step: int) -> float:
    """min(`decay`, (1 + n) / (10 + n)) after n steps, so that the initial weights are soon forgotten."""
    return min(decay, (1 + step) / (_WARM_UP_STEPS + step))


@torch.no_grad()
def update_ema(teacher: Segmentor, segmentor: Segmentor, decay: float) -> None:
    """Set the teacher's weights to `decay` * their values + (1 - `decay`) * the segmentor's.

    The running statistics of batch normalisation are averaged like the weights. They stay linear in those of the
    batches, so workers may average theirs at any time.
    """
    own, others = _tensors(teacher), _tensors(segmentor)
    averaged = [place for place, tensor in enumerate(own) if tensor.is_floating_point()]
    torch._foreach_lerp_([own[place] for place in averaged], [others[place] for place in averaged], 1 - decay)
    counters = [place for place in range(len(own)) if place not in set(averaged)]
    torch._foreach_copy_([own[place] for place in counters], [others[place] for place in counters])


def _tensors(segmentor: Segmentor) -> list[Tensor]:
    return [*segmentor.parameters(), *segmentor.buffers()]
