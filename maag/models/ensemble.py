"""Several segmentors as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maag.models.segmentor import SegmentorOutput


class Ensemble(nn.Module):
    """The average of the class probabilities of several networks.

    Args:
        networks: modules whose outputs have `logits` (N, num_classes, H, W), for the same images.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> SegmentorOutput:
        """Segment (N, C, H, W) float images, as each of the networks takes them.

        The softmax of the logits is the mean of the networks' probabilities; there are no gate maps.
        """
        each = torch.stack([network(images).logits.log_softmax(dim=1) for network in self.networks])
        # torch.logsumexp would do the same, but TensorRT runs its operator without subtracting the largest, and in
        # fp16 probabilities below 6e-8 would become logarithms of 0.
        largest = each.amax(dim=0)
        return SegmentorOutput(largest + (each - largest).exp().mean(dim=0).log(), {})
