"""The prior of areas: over many batches, each class is predicted as large as unpaired masks have it.

One batch says little: its few slices may well hold twice as much of a class as the next. So predictions are averaged
over the batches of late, which are held to a far narrower interval, and the batch at hand is moved for all of them.
Self-training is what it is for: a teacher that is a little less sure of a thin structure each time wears it away.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maag.data.slices.areas import Areas
from maag.losses import area_loss
from maag.train.team import Team

_KEPT = 0.98
"""Part of the past that each batch leaves: about fifty batches count."""
_SPREADS = 2.0
"""Half a plausible interval in standard deviations of the difference between the two means."""


class RunningAreas(nn.Module):
    """How large each class was in predictions of late: discounted sums, which a checkpoint holds."""

    total: Tensor
    """(num_classes,) float32: sum of batches' mean areas, in parts of a slice."""
    weight: Tensor
    """() float32: sum of their weights."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(num_classes))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def take_in(self, areas: Tensor) -> tuple[Tensor, Tensor]:
        """Remember a batch's mean `areas` (num_classes,).

        Returns:
            The mean over the batches so far (num_classes,), and how many equal batches would be as sure of it ().
        """
        self.total.mul_(_KEPT).add_(areas)
        self.weight.mul_(_KEPT).add_(1.0)
        # Of weights 1, k, k^2, ... that add up to w, the squares add up to w (2 - w (1 - k)) / (1 + k).
        num_batches = self.weight * (1 + _KEPT) / (2 - self.weight * (1 - _KEPT))
        return self.total / self.weight, num_batches


def areas_loss(logits: Tensor, areas: Areas, running: RunningAreas, num_slices: int, team: Team) -> Tensor:
    """How far the classes' parts of the slices of late are from what masks have; scalar.

    Args:
        logits: (M, num_classes, H, W) of this worker's slices.
        areas: what masks have.
        running: what predictions had; takes in the whole batch.
        num_slices: in the whole batch.
        team: the workers that share it.
    """
    own = logits.softmax(dim=1).mean(dim=(2, 3)).sum(dim=0) / num_slices
    batch = of_whole_batch(own, team)
    mean, num_batches = running.take_in(batch.detach())
    of_late = mean + (batch - batch.detach())
    tolerance = _SPREADS * areas.spread * (1 / (num_slices * num_batches) + 1 / areas.num_masks).sqrt()
    return area_loss(of_late, areas.mean, tolerance)


def of_whole_batch(own: Tensor, team: Team) -> Tensor:
    """The sum over the workers of what each has of its own slices, through which gradients flow to the own part.

    Multiplied by the number of workers, for gradients are averaged over them afterwards.
    """
    return team.sum(own.detach()) + team.size * (own - own.detach())
