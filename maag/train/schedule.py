"""The course of the learning rate, a pure function of how far training has come."""

from __future__ import annotations

import math

from maag.config.schema import OptimConfig


def rate_factor(config: OptimConfig, epoch: float) -> float:
    """Learning rate at a fractional `epoch` in [0, epochs], as a part of `config.lr`, in (0, 1]."""
    lowest = config.lr_min / config.lr
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        progress = min(epoch / config.epochs, 1.0)
        return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * progress))
    # Triangular: up for half a cycle from the lowest rate, down for the other half, again and again.
    phase = (epoch / config.half_cycle_epochs) % 2
    return lowest + (1 - lowest) * (1 - abs(1 - phase))
