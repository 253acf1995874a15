"""What a search varies, in dotted settings; every sample goes through `maag.config.codec.override`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from ray import tune as ray_tune

from maag.config import codec
from maag.config.schema import Config
from maag.errors import ConfigError

SPACE: Final[dict[str, Any]] = {
    "loss.supervised": ray_tune.loguniform(0.5, 2.0),
    "loss.adversarial": ray_tune.loguniform(0.03, 1.0),
    "loss.dynamic_balance": ray_tune.choice([True, False]),
    "loss.class_weights": ray_tune.choice([0.0, 0.5, 1.0]),
    # Lists as text, as `--set` takes them: Optuna's choices are plain values.
    "gates.levels": ray_tune.choice(["[0, 1, 2, 3]", "[1, 2, 3]", "[2, 3]"]),
    "gates.residual": ray_tune.choice([True, False]),
    "gates.temperature": ray_tune.loguniform(0.5, 2.0),
    "gates.conditioned": ray_tune.choice([True, False]),
    "discriminator.instance_noise": ray_tune.uniform(0.0, 0.4),
    "discriminator.label_noise": ray_tune.uniform(0.0, 0.2),
    "discriminator.scales": ray_tune.choice(["[0, 1, 2, 3]", "[0, 1]", "[0]"]),
    "optim.lr": ray_tune.loguniform(5e-5, 6e-3),
    "optim.lr_discriminator": ray_tune.loguniform(3e-5, 1e-3),
}
"""Distributions by setting."""

CHANGEABLE: Final = (
    *("loss.supervised", "loss.adversarial", "gates.temperature"),
    *("discriminator.instance_noise", "discriminator.label_noise", "optim.lr", "optim.lr_discriminator"),
)
"""Settings that may change in the middle of a run, as population based training does: none of them makes a tensor."""

_ADVERSARIAL: Final = (
    *("loss.adversarial", "loss.dynamic_balance", "gates.conditioned", "optim.lr_discriminator"),
    *(path for path in SPACE if path.startswith("discriminator.")),
)
"""Settings that change nothing without a discriminator; the first would bring one in."""


def within(sample: Mapping[str, Any], space: Mapping[str, Any]) -> dict[str, Any]:
    """The sample with each number brought within its bounds: population based training multiplies past them."""
    return {
        path: min(max(value, space[path].lower), space[path].upper) if hasattr(space.get(path), "lower") else value
        for path, value in sample.items()
    }


def searched(base: Config, held: Collection[str], *, on_the_way: bool = False) -> tuple[str, ...]:
    """The settings that a search of `base` varies: those of SPACE that matter there and are not `held` as they stand.

    Args:
        base: what samples are laid over.
        held: settings that someone chose.
        on_the_way: only those that may change in the middle of a run.

    Raises:
        ConfigError: none is left, or the search would try rates below `optim.lr_min`.
    """
    idle = () if base.adversarial else _ADVERSARIAL
    free = tuple(path for path in (CHANGEABLE if on_the_way else SPACE) if path not in held and path not in idle)
    if not free:
        raise ConfigError(
            f"--set {' '.join(sorted(held))}: nothing is left to search, so all trials would be alike; leave some of "
            "them out, or use `maag train`"
        )
    if "optim.lr" in free and base.optim.lr_min > SPACE["optim.lr"].lower:
        raise ConfigError(
            f"optim.lr_min={base.optim.lr_min:g} lies above {SPACE['optim.lr'].lower:g}, the lowest optim.lr that is "
            "searched; lower it, or hold the rate as well, with --set optim.lr=RATE"
        )
    return free


def explain(base: Config, held: Collection[str], space: Mapping[str, Any]) -> list[str]:
    """A sentence for each way in which a search of `space` is not what one would expect of `base`."""
    sentences = []
    if pinned := [path for path in SPACE if path in held]:
        sentences.append(f"All trials have {', '.join(pinned)} as --set says; the search varies the others.")
    if not base.adversarial:
        sentences.append(
            f"No discriminator takes part, so {', '.join(_ADVERSARIAL)} would change nothing and are not searched."
        )
    if outside := [path for path, value in _sample_of(base, space).items() if not space[path].is_valid(value)]:
        sentences.append(
            f"The settings as they stand are no trial: {', '.join(outside)} lies outside of what is searched; "
            "--set holds a setting as it is."
        )
    return sentences


def starting_point(base: Config, space: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sample of `space` that leaves `base` as it is; None when a setting of it lies outside of the space.

    A search that begins there cannot end below its base but by chance.
    """
    sample = _sample_of(base, space)
    return sample if all(space[path].is_valid(value) for path, value in sample.items()) else None


def _sample_of(base: Config, space: Mapping[str, Any]) -> dict[str, Any]:
    values = {setting.path: setting.value for setting in codec.leaves(base) if setting.path in space}
    return {
        path: json.dumps(list(value)) if isinstance(value, list | tuple) else value for path, value in values.items()
    }
