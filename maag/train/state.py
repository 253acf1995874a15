"""The training state: networks, optimisers and progress."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from maag.config.schema import Config
from maag.models.build import build_discriminator, build_segmentor
from maag.models.discriminator import Discriminator
from maag.models.layers import ConvNorm
from maag.models.segmentor import Segmentor
from maag.train.acceleration import accelerated
from maag.train.areas import RunningAreas
from maag.train.teacher import ema_copy
from maag.train.team import ALONE, Team

Network = TypeVar("Network", bound=nn.Module)


@dataclass(slots=True)
class Progress:
    """How far training has come; plain numbers, so that a checkpoint can hold them."""

    step: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Wall time so far, including before a resume."""
    best_dice: float = -1.0
    """Highest mean validation Dice; -1 before the first."""
    best_epoch: int = 0
    without_gain: int = 0
    """Validations since the best."""
    losses: dict[str, float] = field(default_factory=dict)
    """Sums of each loss over the steps of the current epoch."""
    steps_in_losses: int = 0


class TrainState:
    """Networks and optimisers of one worker on its device.

    Initial weights depend on `config.train.seed` alone; torch's global generator is left unchanged.
    """

    team: Team
    segmentor: Segmentor
    parallel_segmentor: nn.Module
    """The segmentor, accelerated, for forward passes whose gradients are averaged over the workers."""
    teacher: Segmentor | None
    """The running average of the segmentor's weights, in evaluation mode, if one is kept."""
    accelerated_teacher: nn.Module | None
    """The teacher, accelerated, for soft labels."""
    areas: RunningAreas | None
    """Running mean of the predicted areas, if `loss.areas` is not 0."""
    ramp: float | Tensor
    """Factor in (0, 1] on the weights of the soft labels and of `loss.areas` in the coming step."""
    discriminator: Discriminator | None
    accelerated_discriminator: nn.Module | None
    """The discriminator, accelerated, for forward passes that leave no gradients in it."""
    parallel_discriminator: nn.Module | None
    """The discriminator, accelerated, for forward passes whose gradients are averaged over the workers."""
    segmentor_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer | None
    noise: torch.Generator
    progress: Progress

    def __init__(self, config: Config, device: torch.device, team: Team = ALONE) -> None:
        self.team = team
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            self.segmentor = _placed(build_segmentor(config), device)
            self.discriminator = _placed(build_discriminator(config), device) if config.adversarial else None
        if config.segmentor.sync_batchnorm:
            self.segmentor = team.synchronized(self.segmentor)
        self.teacher = ema_copy(self.segmentor) if config.teacher.decay else None
        self.areas = RunningAreas(config.data.num_classes).to(device) if config.loss.areas else None
        self.ramp = 1.0
        self.parallel_segmentor = team.parallel(accelerated(self.segmentor, config.train, device))
        self.accelerated_teacher = accelerated(self.teacher, config.train, device) if self.teacher else None
        self.accelerated_discriminator = self.parallel_discriminator = None
        self.segmentor_optimizer = _adam(self.segmentor, config.optim.lr)
        self.discriminator_optimizer = None
        if self.discriminator is not None:
            self.accelerated_discriminator = accelerated(self.discriminator, config.train, device)
            self.parallel_discriminator = team.parallel(self.accelerated_discriminator)
            self.discriminator_optimizer = _adam(self.discriminator, config.optim.lr_discriminator)
        # Reseeded at each step, so a checkpoint need not hold it.
        self.noise = torch.Generator(device)
        self.progress = Progress()

    @property
    def eval_segmentor(self) -> Segmentor:
        """The network to validate and export: the teacher if there is one, else the segmentor."""
        return self.segmentor if self.teacher is None else self.teacher

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The segmentor's, then the discriminator's if there is one."""
        both = (self.segmentor_optimizer, self.discriminator_optimizer)
        return [optimizer for optimizer in both if optimizer is not None]

    @property
    def non_finite_networks(self) -> tuple[str, ...]:
        """Names of the networks that have a NaN or infinite weight or running statistic."""
        networks = {name: part for name, part in self._parts().items() if isinstance(part, nn.Module)}
        return tuple(name for name, network in networks.items() if not _is_finite(network))

    def set_rates(self, segmentor: float, discriminator: float) -> None:
        """Set the learning rates of the coming step."""
        _set_rate(self.segmentor_optimizer, segmentor)
        if self.discriminator_optimizer is not None:
            _set_rate(self.discriminator_optimizer, discriminator)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as tensors and plain types only."""
        return {
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
            "progress": dataclasses.asdict(self.progress),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(state["parts"][name])
        for network in (self.segmentor, self.teacher):
            for layer in network.modules() if network else ():
                if isinstance(layer, ConvNorm):
                    layer.absorb_bias()
        self.progress = Progress(**state["progress"])

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        parts = {
            "segmentor": self.segmentor,
            "teacher": self.teacher,
            "discriminator": self.discriminator,
            "areas": self.areas,
            "segmentor_optimizer": self.segmentor_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        return {name: part for name, part in parts.items() if part is not None}


def _placed(network: Network, device: torch.device) -> Network:
    # Convolutions on CPUs and tensor cores are fastest in the channels-last layout.
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _is_finite(network: nn.Module) -> bool:
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    # One transfer for all tensors: on a GPU each one would wait for the device.
    return all(torch.stack([tensor.isfinite().all() for tensor in tensors]).tolist()) if tensors else True


def _adam(network: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=lr, fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
