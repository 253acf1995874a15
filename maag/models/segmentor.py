"""The segmentor: a U-Net with an adversarial attention gate in each decoder block."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from maag.config.networks import GateConfig, SegmentorConfig
from maag.models.attention import AdversarialAttentionGate
from maag.models.layers import DenseGradient, conv_block, double_conv, pointwise, residual_conv, upsample

NUM_LEVELS = 4
"""Decoder levels; level `l` works at 1 / 2**l of the input's size."""


class SegmentorOutput(NamedTuple):
    """Output of one forward pass."""

    logits: Tensor
    """(N, num_classes, H, W) float."""
    gate_maps: dict[int, Tensor]
    """By gated level: class probabilities (N, num_classes, H / 2**level, W / 2**level) in [0, 1]."""


def encoder_block(channels_in: int, channels: int, num_residual: int, norm_momentum: float) -> nn.Sequential:
    """The paper's double convolution, or `num_residual` residual blocks if that is not 0.

    (N, channels_in, H, W) to (N, channels, H, W).
    """
    if num_residual == 0:
        return double_conv(channels_in, channels, kernel=3, norm_momentum=norm_momentum)
    return residual_conv(channels_in, channels, num_blocks=num_residual, norm_momentum=norm_momentum)


class DecoderBlock(nn.Module):
    """Upsample by 2, concatenate the skip connection, convolve twice, and gate."""

    def __init__(
        self, channels_in: int, channels: int, num_classes: int, gates: GateConfig | None, norm_momentum: float
    ) -> None:
        super().__init__()
        self.upsample = upsample(channels_in, channels, norm_momentum=norm_momentum)
        self.first = conv_block(2 * channels, channels, kernel=3, norm_momentum=norm_momentum)
        self.second = conv_block(channels, channels, kernel=3, norm_momentum=norm_momentum)
        self.gate = AdversarialAttentionGate(channels, num_classes, gates) if gates else None

    def forward(self, below: Tensor, skip: Tensor) -> tuple[Tensor, Tensor | None]:
        """Decode one level.

        Args:
            below: (N, channels_in, h, w) features of the coarser level.
            skip: (N, channels, 2h, 2w) features of the encoder.

        Returns:
            Features (N, channels, 2h, 2w), and the gate map (N, num_classes, 2h, 2w), None without a gate.
        """
        upsampled = self.upsample(below)
        if self.training:
            upsampled = DenseGradient.apply(upsampled)  # type: ignore[no-untyped-call]
        gating = self.first(torch.cat([upsampled, skip], dim=1))
        features = self.second(gating)
        return self.gate(gating, features) if self.gate else (features, None)


class Segmentor(nn.Module):
    """Predict class logits and gate maps from images."""

    def __init__(self, channels: int, num_classes: int, config: SegmentorConfig, gates: GateConfig) -> None:
        super().__init__()
        widths = [config.width * 2**level for level in range(NUM_LEVELS + 1)]
        momentum = config.norm_momentum
        self.encoder = nn.ModuleList(
            encoder_block(channels_in, channels_out, num_residual, momentum)
            for channels_in, channels_out, num_residual in zip(
                [channels, *widths[: NUM_LEVELS - 1]], widths[:NUM_LEVELS], config.residual_blocks, strict=True
            )
        )
        self.bottleneck = double_conv(widths[3], widths[4], kernel=1, norm_momentum=momentum)
        self.decoder = nn.ModuleList(
            DecoderBlock(
                widths[level + 1], widths[level], num_classes, gates if level in gates.levels else None, momentum
            )
            for level in range(NUM_LEVELS)
        )
        self.classify = pointwise(widths[0], num_classes)

    def forward(self, images: Tensor) -> SegmentorOutput:
        """Segment (N, C, H, W) float images; H and W must be multiples of 16."""
        skips = []
        features = images
        for block in self.encoder:
            skips.append(block(features))
            features = max_pool2d(skips[-1], 2)
        features = self.bottleneck(features)

        gate_maps: dict[int, Tensor] = {}
        for level in reversed(range(NUM_LEVELS)):
            features, gate_map = self.decoder[level](features, skips[level])
            if gate_map is not None:
                gate_maps[level] = gate_map
        return SegmentorOutput(self.classify(features), gate_maps)
