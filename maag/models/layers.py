"""Convolution blocks that the networks are made of."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

Conv = TypeVar("Conv", nn.Conv2d, nn.ConvTranspose2d)

_LEAK = 0.2  # slope of the discriminator's first activation, as in the release


def conv_norm(channels_in: int, channels_out: int, *, kernel: int, norm_momentum: float) -> nn.Sequential:
    """Convolution of odd `kernel`, batch normalisation: (N, channels_in, H, W) to (N, channels_out, H, W)."""
    return nn.Sequential(
        _he_normal(nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)),
        nn.BatchNorm2d(channels_out, momentum=norm_momentum),
    )


def conv_block(channels_in: int, channels_out: int, *, kernel: int, norm_momentum: float) -> nn.Sequential:
    """`conv_norm` and ReLU: (N, channels_in, H, W) to (N, channels_out, H, W)."""
    return conv_norm(channels_in, channels_out, kernel=kernel, norm_momentum=norm_momentum).append(
        nn.ReLU(inplace=True)
    )


def double_conv(channels_in: int, channels_out: int, *, kernel: int, norm_momentum: float) -> nn.Sequential:
    """Two `conv_block`s: (N, channels_in, H, W) to (N, channels_out, H, W)."""
    return nn.Sequential(
        conv_block(channels_in, channels_out, kernel=kernel, norm_momentum=norm_momentum),
        conv_block(channels_out, channels_out, kernel=kernel, norm_momentum=norm_momentum),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to their input before the last ReLU (He et al. 2016, figure 2).

    Where the number of channels changes, the input goes through a 1x1 convolution (there option B).
    """

    def __init__(self, channels_in: int, channels_out: int, *, norm_momentum: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_block(channels_in, channels_out, kernel=3, norm_momentum=norm_momentum),
            conv_norm(channels_out, channels_out, kernel=3, norm_momentum=norm_momentum),
        )
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out
            else conv_norm(channels_in, channels_out, kernel=1, norm_momentum=norm_momentum)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels_out, H, W), not negative."""
        return torch.relu(self.residual(features) + self.shortcut(features))


def residual_conv(channels_in: int, channels_out: int, *, num_blocks: int, norm_momentum: float) -> nn.Sequential:
    """`num_blocks` >= 1 residual blocks, channels changed by the first: (N, channels_in, H, W) to channels_out."""
    inputs = [channels_in] + [channels_out] * (num_blocks - 1)
    return nn.Sequential(*(ResidualBlock(channels, channels_out, norm_momentum=norm_momentum) for channels in inputs))


def upsample(channels_in: int, channels_out: int, *, norm_momentum: float) -> nn.Sequential:
    """Transposed convolution that doubles H and W, batch normalisation, no activation."""
    return nn.Sequential(
        _he_normal(nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2)),
        nn.BatchNorm2d(channels_out, momentum=norm_momentum),
    )


def pointwise(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Convolution of 1x1: one linear map at every pixel."""
    return _he_normal(nn.Conv2d(channels_in, channels_out, 1))


def halving_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """The discriminator's first layer: 4x4 convolution of stride 2, LeakyReLU; H and W even."""
    return nn.Sequential(
        _he_normal(nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)),
        nn.LeakyReLU(_LEAK),
    )


def spectral_conv(channels_in: int, channels_out: int, *, stride: int) -> nn.Sequential:
    """4x4 convolution of spectral norm 1, tanh; stride 2 halves even H and W, stride 1 keeps them."""
    # A kernel of 4 at stride 1 needs three more pixels: one before, two after.
    pad = nn.ZeroPad2d((1, 2, 1, 2) if stride == 1 else 1)
    conv = nn.Conv2d(channels_in, channels_out, 4, stride=stride)
    register_parametrization(conv, "weight", SpectralNorm(conv.weight))
    return nn.Sequential(pad, conv, nn.Tanh())


class SpectralNorm(_SpectralNorm):
    """torch's spectral norm of a weight, which under autocast would iterate with the digits of bf16."""

    def forward(self, weight: Tensor) -> Tensor:
        """The weight over its largest singular value, in the weight's own precision."""
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


def _he_normal(conv: Conv) -> Conv:
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
