"""The search space, by dotted setting; every sample is applied by `maag.config.codec.override`."""

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
    # Lists as JSON text, as in `--set`, because Optuna's choices must be plain values.
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
"""Settings that may change during a run, in population based training: none of them affects a network's parameters."""

_ADVERSARIAL: Final = (
    *("loss.adversarial", "loss.dynamic_balance", "gates.conditioned", "optim.lr_discriminator"),
    *(path for path in SPACE if path.startswith("discriminator.")),
)
"""Settings without effect if there is no discriminator; the first would add one."""


def within(sample: Mapping[str, Any], space: Mapping[str, Any]) -> dict[str, Any]:
    """The sample with each number clamped to its bounds, which population based training exceeds."""
    return {
        path: min(max(value, space[path].lower), space[path].upper) if hasattr(space.get(path), "lower") else value
        for path, value in sample.items()
    }


def searched(base: Config, held: Collection[str], *, on_the_way: bool = False) -> tuple[str, ...]:
    """The settings that a search varies: those of SPACE that have an effect on `base` and are not `held`.

    Args:
        base: the configuration that samples are applied to.
        held: settings fixed by the user.
        on_the_way: only settings that may change during a run.

    Raises:
        ConfigError: none is left, or the search would try rates below `optim.lr_min`.
    """
    idle = () if base.adversarial else _ADVERSARIAL
    free = tuple(path for path in (CHANGEABLE if on_the_way else SPACE) if path not in held and path not in idle)
    if not free:
        raise ConfigError(
            f"--set {' '.join(sorted(held))}: nothing is left to search, so all trials would be equal; leave some of "
            "them out, or use `maag train`"
        )
    if "optim.lr" in free and base.optim.lr_min > SPACE["optim.lr"].lower:
        raise ConfigError(
            f"optim.lr_min={base.optim.lr_min:g} is above {SPACE['optim.lr'].lower:g}, the lowest optim.lr of the "
            "search; lower it, or fix the rate as well, with --set optim.lr=RATE"
        )
    return free


def explain(base: Config, held: Collection[str], space: Mapping[str, Any]) -> list[str]:
    """A sentence for each way in which a search of `base` over `space` may surprise the user."""
    sentences = []
    if pinned := [path for path in SPACE if path in held]:
        sentences.append(f"All trials have {', '.join(pinned)} as --set gives them; the search varies the others.")
    if not base.adversarial:
        sentences.append(
            f"There is no discriminator, so {', '.join(_ADVERSARIAL)} have no effect and are not searched."
        )
    if outside := [path for path, value in _sample_of(base, space).items() if not space[path].is_valid(value)]:
        sentences.append(
            f"The current settings are not among the trials, because {', '.join(outside)} "
            f"{'are' if len(outside) > 1 else 'is'} outside the search space; --set fixes a setting."
        )
    return sentences


def starting_point(base: Config, space: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sample that leaves `base` unchanged; None if a setting of `base` is outside of `space`.

    A search that starts there includes its base among the trials.
    """
    sample = _sample_of(base, space)
    return sample if all(space[path].is_valid(value) for path, value in sample.items()) else None


def _sample_of(base: Config, space: Mapping[str, Any]) -> dict[str, Any]:
    values = {setting.path: setting.value for setting in codec.leaves(base) if setting.path in space}
    return {
        path: json.dumps(list(value)) if isinstance(value, list | tuple) else value for path, value in values.items()
    }
