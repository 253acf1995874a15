"""Data-parallel training: the workers that train one pair of networks; with one worker every method does nothing.

A batch is the same whatever the number of workers: each takes its shard, and losses are scaled so that their mean over
the workers is the loss of the whole batch. Averaging gradients, as DistributedDataParallel does, then gives the update
of the whole batch.
"""

from __future__ import annotations

import warnings
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from maag.data.slices.shard import WHOLE, Shard
from maag.models.sync_norm import with_synchronized_norms

Network = TypeVar("Network", bound=nn.Module)


class Team:
    """One process that trains alone."""

    shard: Shard = WHOLE

    @property
    def size(self) -> int:
        """Number of workers."""
        return self.shard.size

    @property
    def leads(self) -> bool:
        """Whether this is the worker that saves and reports."""
        return self.shard.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over the workers, the same on each; no gradient flows through it."""
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Elementwise mean over the workers, the same on each; no gradient flows through it."""
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is true on any worker; the same on each."""
        return flags

    def synchronized(self, network: Network) -> Network:
        """The network with batch normalisation over the slices of all workers."""
        return network

    def parallel(self, network: nn.Module) -> nn.Module:
        """`network` wrapped so that after a backward pass each worker has the mean gradient."""
        return network

    def average_statistics(self, network: nn.Module) -> None:
        """Average batch normalisation's running statistics, which differ between workers, over all workers."""


ALONE = Team()


class TorchTeam(Team):
    """The workers of torch's default process group, which must be initialised: NCCL on GPUs, gloo on CPUs."""

    def __init__(self, device: torch.device) -> None:
        self.shard = Shard(distributed.get_rank(), distributed.get_world_size())
        self._device = device

    def sum(self, values: Tensor) -> Tensor:
        """See Team."""
        # NCCL needs contiguous tensors.
        total = values.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """See Team."""
        return self.sum(values) / self.size

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """See Team."""
        raised = self.sum(torch.tensor(flags, dtype=torch.float32, device=self._device))
        return tuple(value > 0 for value in raised.tolist())

    def synchronized(self, network: Network) -> Network:
        """See Team."""
        if self._device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return, no-untyped-call]
        return with_synchronized_norms(network)

    def parallel(self, network: nn.Module) -> nn.Module:
        """See Team."""
        # Buffers are not broadcast: `average_statistics` combines them exactly at any time, because running statistics
        # are linear in those of the batches.
        with warnings.catch_warnings():
            # torch 2.13 renames an argument; the new name is unknown to the oldest torch that maag supports.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def average_statistics(self, network: nn.Module) -> None:
        """See Team."""
        statistics = [
            buffer
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        if not statistics:
            return
        means = self.mean(torch.cat([buffer.flatten() for buffer in statistics]))
        for buffer, mean in zip(statistics, torch.split(means, [buffer.numel() for buffer in statistics]), strict=True):
            buffer.copy_(mean.view_as(buffer))


def team_of_workers(device: torch.device) -> Team:
    """The workers of torch's default process group, which must be initialised; ALONE if this is the only one.

    Even with a single worker, DistributedDataParallel would synchronise in each pass, which a CUDA graph cannot record.
    """
    return TorchTeam(device) if distributed.get_world_size() > 1 else ALONE
