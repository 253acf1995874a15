"""Schedules of learning rates, loss weights and validations, as pure functions of training progress."""

from __future__ import annotations

import math

from maag.config.training import OptimConfig, TrainConfig

_POLY_POWER = 0.9
_RAMP_STEEPNESS = 5.0


def rate_factor(config: OptimConfig, epoch: float) -> float:
    """Learning rate at a fractional `epoch` in [0, epochs], divided by `config.lr`: in [`lr_min` / `lr`, 1]."""
    lowest = config.lr_min / config.lr
    if config.schedule == "constant":
        return 1.0
    progress = min(epoch / config.epochs, 1.0)
    if config.schedule == "cosine":
        return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "poly":
        return lowest + (1 - lowest) * math.pow(1 - progress, _POLY_POWER)
    # Triangular: from the lowest rate up for half a cycle, then down for the other half, repeatedly (Smith 2017).
    phase = (epoch / config.half_cycle_epochs) % 2
    return lowest + (1 - lowest) * (1 - abs(1 - phase))


def ramp_factor(length: float, progress: float) -> float:
    """Weight factor in (0, 1] of a loss term at `progress` t in [0, 1]: exp(-5 (1 - t / `length`)²), then 1."""
    remaining = 0.0 if length == 0 else max(0.0, 1 - progress / length)
    return math.exp(-_RAMP_STEEPNESS * remaining**2)


def validates_after(config: TrainConfig, epoch: int, epochs: int) -> bool:
    """Whether a validation follows `epoch`, counted from 1, of `epochs`."""
    every = config.validate_every if epoch <= epochs // 2 else config.validate_every_late
    return epoch % every == 0 or epoch == epochs
