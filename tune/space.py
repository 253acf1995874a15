"""What a search varies, in dotted settings; every sample goes through `maag.config.codec.override`."""

from __future__ import annotations

from typing import Any, Final

from ray import tune as ray_tune

SPACE: Final[dict[str, Any]] = {
    "loss.supervised": ray_tune.loguniform(0.5, 2.0),
    "loss.adversarial": ray_tune.loguniform(0.03, 1.0),
    "loss.dynamic_balance": ray_tune.choice([True, False]),
    "loss.class_weights": ray_tune.choice([True, False]),
    # Lists as text, as `--set` takes them: Optuna's choices are plain values.
    "gates.levels": ray_tune.choice(["[0, 1, 2, 3]", "[1, 2, 3]", "[2, 3]"]),
    "gates.residual": ray_tune.choice([True, False]),
    "gates.temperature": ray_tune.loguniform(0.5, 2.0),
    "gates.conditioned": ray_tune.choice([True, False]),
    "discriminator.instance_noise": ray_tune.uniform(0.0, 0.4),
    "discriminator.label_noise": ray_tune.uniform(0.0, 0.2),
    "discriminator.scales": ray_tune.choice(["[0, 1, 2, 3]", "[0, 1]", "[0]"]),
    "optim.lr": ray_tune.loguniform(3e-4, 6e-3),
    "optim.lr_discriminator": ray_tune.loguniform(3e-5, 1e-3),
}
"""Distributions by setting."""

CHANGEABLE: Final = (
    *("loss.supervised", "loss.adversarial", "gates.temperature"),
    *("discriminator.instance_noise", "discriminator.label_noise", "optim.lr", "optim.lr_discriminator"),
)
"""Settings that may change in the middle of a run, as population based training does: none of them makes a tensor."""
