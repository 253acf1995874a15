"""The adversarial attention gate: a small segmentation inside the decoder that decides what passes."""

from __future__ import annotations

from torch import Tensor, nn

from maag.config.networks import GateConfig
from maag.models.layers import pointwise


class AdversarialAttentionGate(nn.Module):
    """Multiply features by the probability that a pixel is foreground.

    The class probabilities behind it are the map that the discriminator judges at this scale, so that the gate
    learns shapes although no label reaches it (paper section III-B).
    """

    def __init__(self, channels: int, num_classes: int, config: GateConfig) -> None:
        super().__init__()
        self.classify = pointwise(channels, num_classes)
        self.temperature = config.temperature
        self.residual = config.residual

    def forward(self, evidence: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Gate `features` by what `evidence` shows.

        Args:
            evidence: (N, channels, H, W) float, the decoder block's first convolution.
            features: (N, channels, H, W) float, its second.

        Returns:
            Gated features (N, channels, H, W) and class probabilities (N, num_classes, H, W) in [0, 1].
        """
        probabilities = (self.classify(evidence) / self.temperature).softmax(dim=1)
        attention = probabilities[:, 1:].sum(dim=1, keepdim=True)  # (N, 1, H, W), background left out
        factor = 1 + attention if self.residual else attention
        return features * factor, probabilities
