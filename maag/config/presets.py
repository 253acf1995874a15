"""The presets of `maag train`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from maag.config.codec import override
from maag.config.data import DataConfig
from maag.config.networks import SIZE_MULTIPLE
from maag.config.schema import Config
from maag.errors import ConfigError

RECIPE: Mapping[str, Any] = {
    "augment.rotation_deg": 30.0,
    "augment.scale": 0.15,
    "augment.brightness": 0.1,
    "augment.contrast": 0.1,
    "augment.noise": 0.05,
    "segmentor.norm_momentum": 0.1,
    "loss.adversarial": 0.4,
    "loss.adversarial_unlabelled": 0.0,
    "optim.schedule": "cosine",
}
"""Training recipe of every preset but `paper`; chosen by measurement, see benchmarks/EARLIER.md."""

BEYOND: Mapping[str, Any] = {
    "augment.elastic": 0.02,
    "augment.gamma": 0.3,
    "loss.adversarial": 0.15,
    "loss.class_weights": 0.5,
    "loss.dense_overlap": 1.0,
    "loss.teacher": 1.0,
    "teacher.decay": 0.99,
    "teacher.rotation_deg": 30.0,
    "optim.batch_size": 6,
    "optim.epochs": 50,
    "train.class_offsets": True,
}
"""Settings beyond the paper in the best presets, for any size of networks and grid; each is measured there as well."""

BEYOND_SMALL: Mapping[str, Any] = {**BEYOND, "optim.lr": 4e-3}
"""The same for networks and grids of the fast preset's size, which are stable at a higher rate."""

_FAST: Mapping[str, Any] = {
    **RECIPE,
    "segmentor.width": 12,
    "discriminator.width": 12,
    "optim.lr": 2e-3,
    "optim.lr_min": 2e-5,
    "optim.lr_discriminator": 2e-4,
    "optim.epochs": 30,
    "train.validate_every": 5,
    "train.validate_every_late": 5,
    "train.precision": "auto",
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The defaults of the schema are those of the paper's released code.
    "paper": {},
    # For two CPU cores.
    "fast": _FAST,
    "best-fast": {**_FAST, **BEYOND_SMALL},
    "best": {
        **RECIPE,
        **BEYOND,
        "optim.lr": 1e-3,
        "train.validate_every": 5,
        "train.validate_every_late": 5,
        "train.precision": "auto",
    },
}
FOR_CPUS = ("fast", "best-fast")
"""Presets that train in minutes on a CPU, on a coarser grid than the others."""
_FAST_SIDE_PX = 96


STUDENT: Mapping[str, Any] = {"teacher.confidence": 0.0, "teacher.ramp": 0.0}
"""Changes to any preset for a student of finished models: these are as good at the first step as at the last, and do
not learn from their own errors, so pixels of low confidence do no harm."""


def apply_preset(name: str, defaults: Mapping[str, Any], own: Mapping[str, Any]) -> Config:
    """The configuration of preset `name`.

    Args:
        name: a name in PRESETS.
        defaults: dotted settings of the data set.
        own: its dotted settings for this preset; if they set no grid, a preset for CPUs keeps the field of view on a
            coarser one.

    Raises ConfigError for an unknown preset or an invalid value.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset: {name!r} is unknown; known are {', '.join(PRESETS)}")
    config = override(Config(), defaults)
    grid = _coarser(config.data) if name in FOR_CPUS else {}
    return override(config, {**PRESETS[name], **grid, **own})


def _coarser(data: DataConfig) -> dict[str, Any]:
    """The same field of view on a grid that is small enough for a CPU."""
    factor = max(1.0, max(data.size_px) / _FAST_SIDE_PX)
    return {
        "data.spacing_mm": data.spacing_mm * factor,
        "data.size_px": [SIZE_MULTIPLE * math.ceil(side / factor / SIZE_MULTIPLE) for side in data.size_px],
    }
