"""The adversarial attention gate (AAG): a segmentation head inside the decoder that masks its features."""

from __future__ import annotations

from torch import Tensor, nn

from maag.config.networks import GateConfig
from maag.models.layers import pointwise


class AdversarialAttentionGate(nn.Module):
    """Multiply features by the predicted probability that a pixel is foreground (paper section III-B).

    The discriminator judges the class probabilities at the scale of the gate, which so learns shapes without labels.
    """

    def __init__(self, channels: int, num_classes: int, config: GateConfig) -> None:
        super().__init__()
        self.classify = pointwise(channels, num_classes)
        self.temperature = config.temperature
        self.residual = config.residual

    def forward(self, gating: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Gate `features` by the foreground probability predicted from `gating`.

        Args:
            gating: (N, channels, H, W) float, output of the decoder block's first convolution.
            features: (N, channels, H, W) float, output of its second.

        Returns:
            Gated features (N, channels, H, W), and the gate map: class probabilities (N, num_classes, H, W) in [0, 1].
        """
        probabilities = (self.classify(gating) / self.temperature).softmax(dim=1)
        attention = probabilities[:, 1:].sum(dim=1, keepdim=True)  # (N, 1, H, W): all classes but the background
        factor = 1 + attention if self.residual else attention
        return features * factor, probabilities
