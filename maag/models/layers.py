"""Convolution blocks of the networks."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

Conv = TypeVar("Conv", nn.Conv2d, nn.ConvTranspose2d)

_LEAK = 0.2  # negative slope of the discriminator's first activation, as in the released code


class ConvNorm(nn.Sequential):
    """A convolution, batch normalisation, and optional further layers.

    Batch normalisation cancels a bias before it, so training skips the bias, which saves two passes over all features.
    The bias is not trained and stays 0.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
        super().__init__(conv, norm)
        assert conv.bias is not None
        conv.bias.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels_out, H, W)."""
        conv, *others = self
        features: Tensor = self._without_bias(input) if self.training else conv(input)
        for layer in others:
            features = layer(features)
        return features

    def _without_bias(self, input: Tensor) -> Tensor:
        conv = self[0]
        if isinstance(conv, nn.ConvTranspose2d):
            return conv_transpose2d(input, conv.weight, stride=conv.stride)
        assert isinstance(conv, nn.Conv2d)
        return conv2d(input, conv.weight, padding=conv.padding)

    @torch.no_grad()
    def absorb_bias(self) -> None:
        """Move a bias, which checkpoints of earlier versions have, into the running mean; outputs do not change."""
        bias, mean = self[0].bias, self[1].running_mean
        assert isinstance(bias, Tensor)
        assert isinstance(mean, Tensor)
        mean.sub_(bias)
        bias.zero_()


class DenseGradient(torch.autograd.Function):
    """The identity, with a gradient that is made contiguous in the channels-last layout.

    The gradient of one part of a concatenation is a strided view, for which batch normalisation on a GPU is slow.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        """(N, C, H, W) features, unchanged."""
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The same gradient, contiguous."""
        return gradients[0].contiguous(memory_format=torch.channels_last)


def conv_norm(channels_in: int, channels_out: int, *, kernel: int, norm_momentum: float) -> ConvNorm:
    """Convolution with an odd `kernel` and batch normalisation: (N, channels_in, H, W) to (N, channels_out, H, W)."""
    return ConvNorm(
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
    """Two 3x3 convolutions whose output is added to their input before the last ReLU (He et al. 2016, figure 2).

    Where the number of channels changes, the shortcut is a 1x1 convolution (option B of that paper).
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
    """`num_blocks` >= 1 residual blocks: (N, channels_in, H, W) to (N, channels_out, H, W)."""
    inputs = [channels_in] + [channels_out] * (num_blocks - 1)
    return nn.Sequential(*(ResidualBlock(channels, channels_out, norm_momentum=norm_momentum) for channels in inputs))


def upsample(channels_in: int, channels_out: int, *, norm_momentum: float) -> ConvNorm:
    """Transposed convolution that doubles H and W, batch normalisation, no activation."""
    return ConvNorm(
        _he_normal(nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2)),
        nn.BatchNorm2d(channels_out, momentum=norm_momentum),
    )


def pointwise(channels_in: int, channels_out: int) -> nn.Conv2d:
    """1x1 convolution."""
    return _he_normal(nn.Conv2d(channels_in, channels_out, 1))


def halving_conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """The discriminator's first layer: 4x4 convolution of stride 2 and LeakyReLU; H and W must be even."""
    return nn.Sequential(
        _he_normal(nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)),
        nn.LeakyReLU(_LEAK),
    )


def spectral_conv(channels_in: int, channels_out: int, *, stride: int) -> nn.Sequential:
    """Spectrally normalised 4x4 convolution and tanh; stride 2 halves even H and W, stride 1 keeps them."""
    # A 4x4 kernel at stride 1 needs three pixels of padding: one before, two after.
    pad = nn.ZeroPad2d((1, 2, 1, 2) if stride == 1 else 1)
    conv = nn.Conv2d(channels_in, channels_out, 4, stride=stride)
    register_parametrization(conv, "weight", SpectralNorm(conv.weight))
    return nn.Sequential(pad, conv, nn.Tanh())


class SpectralNorm(_SpectralNorm):
    """torch's spectral norm, kept out of autocast, which would run its power iteration in bf16."""

    def forward(self, weight: Tensor) -> Tensor:
        """The weight divided by its largest singular value, in the weight's own precision."""
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


def _he_normal(conv: Conv) -> Conv:
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
