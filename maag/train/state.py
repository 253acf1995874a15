"""All that training changes: networks, optimisers, and how far it has come."""

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
from maag.train.teacher import teacher_of
from maag.train.team import ALONE, Team

Network = TypeVar("Network", bound=nn.Module)


@dataclass(slots=True)
class Progress:
    """Where training stands; plain numbers, so that a checkpoint can hold them."""

    step: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Wall time spent so far, over all resumed parts."""
    best_dice: float = -1.0
    """Highest mean validation Dice; -1 before the first."""
    best_epoch: int = 0
    without_gain: int = 0
    """Validations since the best."""
    losses: dict[str, float] = field(default_factory=dict)
    """Sums of each loss over the steps of the current epoch."""
    steps_in_losses: int = 0


class TrainState:
    """Networks and optimisers on one device, of one worker of a team.

    Initial weights are a function of `config.train.seed` alone; torch's global generator is left as it was.
    """

    team: Team
    segmentor: Segmentor
    joined_segmentor: nn.Module
    """The same, accelerated, for forward passes whose gradients are to be the team's."""
    teacher: Segmentor | None
    """The running average of the segmentor's weights, in evaluation mode, if one is kept."""
    lecturer: nn.Module | None
    """The same, accelerated, for its lessons."""
    areas: RunningAreas | None
    """How large predictions have been of late, if they are held to what masks have."""
    trust: float | Tensor
    """Part of their full weight that the teacher's lesson and the prior of areas have in the coming step."""
    discriminator: Discriminator | None
    judge: nn.Module | None
    """The same, accelerated, for forward passes that leave no gradients in it."""
    joined_discriminator: nn.Module | None
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
        self.teacher = teacher_of(self.segmentor) if config.teacher.decay else None
        self.areas = RunningAreas(config.data.num_classes).to(device) if config.loss.areas else None
        self.trust = 1.0
        self.joined_segmentor = team.joined(accelerated(self.segmentor, config.train, device))
        self.lecturer = accelerated(self.teacher, config.train, device) if self.teacher else None
        self.judge = self.joined_discriminator = None
        self.segmentor_optimizer = _adam(self.segmentor, config.optim.lr)
        self.discriminator_optimizer = None
        if self.discriminator is not None:
            self.judge = accelerated(self.discriminator, config.train, device)
            self.joined_discriminator = team.joined(self.judge)
            self.discriminator_optimizer = _adam(self.discriminator, config.optim.lr_discriminator)
        # Seeded anew at each step, so a checkpoint need not hold it.
        self.noise = torch.Generator(device)
        self.progress = Progress()

    @property
    def product(self) -> Segmentor:
        """What is validated and exported: the teacher if there is one."""
        return self.segmentor if self.teacher is None else self.teacher

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The segmentor's, then the discriminator's, if there is one."""
        both = (self.segmentor_optimizer, self.discriminator_optimizer)
        return [optimizer for optimizer in both if optimizer is not None]

    @property
    def unfit(self) -> tuple[str, ...]:
        """Names of networks with a weight or statistic that is NaN or infinite."""
        networks = {name: part for name, part in self._parts().items() if isinstance(part, nn.Module)}
        return tuple(name for name, network in networks.items() if not _is_finite(network))

    def set_rates(self, segmentor: float, discriminator: float) -> None:
        """Set the learning rates of the coming step."""
        _set_rate(self.segmentor_optimizer, segmentor)
        if self.discriminator_optimizer is not None:
            _set_rate(self.discriminator_optimizer, discriminator)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain types only; `load_state_dict` takes it back."""
        return {
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
            "progress": dataclasses.asdict(self.progress),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
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
    # Channels-last is what the convolution kernels of CPUs and tensor cores read fastest.
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _is_finite(network: nn.Module) -> bool:
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    # All answers at once, for each alone would be waited for on a GPU.
    return all(torch.stack([tensor.isfinite().all() for tensor in tensors]).tolist()) if tensors else True


def _adam(network: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=lr, fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
