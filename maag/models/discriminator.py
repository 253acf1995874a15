"""The multi-scale discriminator: tells real masks from predictions at four scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from maag.config.networks import DiscriminatorConfig
from maag.models.layers import halving_conv, pointwise, spectral_conv
from maag.models.segmentor import NUM_LEVELS, SegmentorOutput

MaskPyramid = Mapping[int, Tensor]
"""By scale: foreground channels (N, num_classes - 1, H / 2**scale, W / 2**scale) float in [0, 1]."""


class DiscriminatorNoise(NamedTuple):
    """Random numbers that regularise the discriminator in training, for N pyramids."""

    instance: Tensor
    """(N, num_classes - 1, H, W) float, standard normal."""
    flip: Tensor
    """(N,) float, uniform in [0, 1)."""


class Discriminator(nn.Module):
    """Least-squares discriminator of masks at full resolution, 1/2, 1/4 and 1/8 (paper section III-C).

    At each scale the features so far are squeezed to a few sigmoid channels, concatenated with the input of that scale,
    and passed through a spectrally normalised convolution. In training, Gaussian noise is added to the full-resolution
    input (instance noise) and the sign of a score is flipped at random (label noise).
    """

    def __init__(self, num_classes: int, size_px: tuple[int, int], config: DiscriminatorConfig) -> None:
        super().__init__()
        foreground = num_classes - 1
        self.scales = config.scales
        self.instance_noise = config.instance_noise
        self.label_noise = config.label_noise
        self.first = halving_conv(foreground, config.width)
        self.squeeze = nn.ModuleList()
        self.descend = nn.ModuleList()
        width = config.width
        for scale in range(1, NUM_LEVELS):
            channels_in = config.squeeze_channels + (foreground if scale in config.scales else 0)
            self.squeeze.append(nn.Sequential(pointwise(width, config.squeeze_channels), nn.Sigmoid()))
            width = config.width * 2 ** (scale + 1)
            self.descend.append(spectral_conv(channels_in, width, stride=1 if scale == NUM_LEVELS - 1 else 2))
        self.verdict = nn.Linear(width * (size_px[0] // 8) * (size_px[1] // 8), 1)
        nn.init.xavier_uniform_(self.verdict.weight)
        nn.init.zeros_(self.verdict.bias)

    def forward(self, pyramid: MaskPyramid, noise: DiscriminatorNoise | None = None) -> Tensor:
        """Score pyramids that hold every scale in `scales`.

        Args:
            pyramid: see MaskPyramid.
            noise: for the same N pyramids; None adds none.

        Returns:
            (N,) float scores: trained towards +1 for real masks, -1 for predictions.
        """
        full = pyramid[0]
        features = self.first(full if noise is None else full + self.instance_noise * noise.instance)
        for scale, (squeeze, descend) in enumerate(zip(self.squeeze, self.descend, strict=True), start=1):
            squeezed = squeeze(features)
            features = descend(torch.cat([squeezed, pyramid[scale]], dim=1) if scale in self.scales else squeezed)
        score: Tensor = self.verdict(features.flatten(start_dim=1)).squeeze(dim=1)
        return score if noise is None else torch.where(noise.flip < self.label_noise, -score, score)


def draw_noise(shape: torch.Size, generator: torch.Generator) -> DiscriminatorNoise:
    """Noise for full-resolution masks of `shape` (N, num_classes - 1, H, W), on the generator's device."""
    device = generator.device
    instance = torch.randn(shape, generator=generator, device=device)
    return DiscriminatorNoise(instance, torch.rand(shape[0], generator=generator, device=device))


def pyramid_of_masks(masks: Tensor, num_classes: int, scales: tuple[int, ...]) -> dict[int, Tensor]:
    """One-hot foreground of real masks, resized bilinearly to each scale.

    Args:
        masks: (N, H, W) integer labels; IGNORE counts as background.
        num_classes: background included.
        scales: 0 is full resolution, `s` is 1 / 2**s of it.
    """
    classes = torch.arange(1, num_classes, device=masks.device, dtype=masks.dtype)
    foreground = (masks[:, None] == classes[None, :, None, None]).float()
    return {scale: _resized(foreground, scale) for scale in scales}


def pyramid_of_predictions(output: SegmentorOutput, scales: tuple[int, ...], *, conditioned: bool) -> dict[int, Tensor]:
    """The discriminator's input for a prediction.

    At full resolution it is the foreground of the softmax prediction. At each lower scale it is the foreground of that
    level's gate map if gates are `conditioned` and the level has one, otherwise the resized prediction.
    """
    foreground = output.logits.softmax(dim=1)[:, 1:]
    return {
        scale: output.gate_maps[scale][:, 1:]
        if scale > 0 and conditioned and scale in output.gate_maps
        else _resized(foreground, scale)
        for scale in scales
    }


def _resized(maps: Tensor, scale: int) -> Tensor:
    if scale == 0:
        return maps
    size = (maps.shape[2] // 2**scale, maps.shape[3] // 2**scale)
    return interpolate(maps, size=size, mode="bilinear", align_corners=False)
