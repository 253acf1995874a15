"""Batch normalisation synchronised over workers on CPUs; torch's own needs CUDA."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

Network = TypeVar("Network", bound=nn.Module)


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with training statistics over the (N, C, H, W) inputs of all workers.

    N may differ between workers. Needs torch's default process group.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; in evaluation mode as BatchNorm2d does."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        # Under autocast the input is bf16, whose precision is too low for counts and for sums over many pixels.
        input = input.to(self.weight.dtype)
        own_count = input.new_tensor([input.numel() / input.shape[1]])
        sums: Tensor = _SumOverWorkers.apply(  # type: ignore[no-untyped-call]
            torch.cat([input.sum(dim=(0, 2, 3)), own_count])
        )
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = input - mean[None, :, None, None]
        # A second pass, because the difference of two large sums would lose precision.
        spread: Tensor = _SumOverWorkers.apply(centred.square().sum(dim=(0, 2, 3)))  # type: ignore[no-untyped-call]
        variance = spread / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return centred * scale[None, :, None, None] + self.bias[None, :, None, None]


class _SumOverWorkers(torch.autograd.Function):
    """All-reduce with gradients: every worker's loss depends on every worker's summand."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def with_synchronized_norms(network: Network) -> Network:
    """Convert each BatchNorm2d of `network` to SynchronizedBatchNorm2d in place; weights and statistics are kept."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedBatchNorm2d
    return network
