"""The area prior: over many batches, the predicted area of each class should match that in unpaired masks.

The few slices of one batch vary too much: they may hold twice as much of a class as the next batch. So predicted areas
are averaged over recent batches, whose mean has a far narrower plausible interval; its gradient goes to the current
batch. The prior is for self-training, in which a teacher that is a little less sure of a thin structure each time
erodes it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maag.data.slices.areas import Areas
from maag.losses import area_loss
from maag.train.team import Team

_DECAY = 0.98
"""Of the running mean at each batch: about fifty batches count."""
_NUM_SD = 2.0
"""Half the width of the plausible interval, in standard deviations of the difference between the two means."""


class RunningAreas(nn.Module):
    """Running mean of the predicted area of each class, as discounted sums that a checkpoint holds."""

    total: Tensor
    """(num_classes,) float32: discounted sum of the batches' mean areas, as fractions of a slice."""
    weight: Tensor
    """() float32: sum of the discounts."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(num_classes))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def add(self, areas: Tensor) -> tuple[Tensor, Tensor]:
        """Add a batch's mean `areas` (num_classes,).

        Returns:
            The discounted mean over batches (num_classes,), and the effective number of batches in it ().
        """
        self.total.mul_(_DECAY).add_(areas)
        self.weight.mul_(_DECAY).add_(1.0)
        # The squares of weights 1, k, k^2, ... whose sum is w add up to w (2 - w (1 - k)) / (1 + k).
        num_batches = self.weight * (1 + _DECAY) / (2 - self.weight * (1 - _DECAY))
        return self.total / self.weight, num_batches


def areas_loss(logits: Tensor, areas: Areas, running: RunningAreas, num_slices: int, team: Team) -> Tensor:
    """`area_loss` of the running mean of predicted areas; scalar.

    Args:
        logits: (M, num_classes, H, W) of this worker's slices.
        areas: mean and spread of the areas in unpaired masks.
        running: running mean of predicted areas; the whole batch is added to it.
        num_slices: number of slices in the whole batch.
        team: the workers that share the batch.
    """
    own = logits.softmax(dim=1).mean(dim=(2, 3)).sum(dim=0) / num_slices
    batch = of_whole_batch(own, team)
    mean, num_batches = running.add(batch.detach())
    with_gradient = mean + (batch - batch.detach())
    tolerance = _NUM_SD * areas.spread * (1 / (num_slices * num_batches) + 1 / areas.num_masks).sqrt()
    return area_loss(with_gradient, areas.mean, tolerance)


def of_whole_batch(own: Tensor, team: Team) -> Tensor:
    """Sum over the workers of a statistic of their `own` slices, with gradients for this worker's part.

    The gradients are multiplied by the number of workers, because they are averaged over the workers afterwards.
    """
    return team.sum(own.detach()) + team.size * (own - own.detach())
