"""Named starting points: what a data set is, and how hard to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maag.config.codec import override
from maag.config.schema import Config
from maag.errors import ConfigError

DATASETS: Mapping[str, Mapping[str, Any]] = {
    "acdc": {
        "data.dataset": "acdc",
        "data.classes": ["background", "RV", "MYO", "LV"],
        "data.unlabelled_value": 4,
        "data.spacing_mm": 1.5117105,
        "data.size_px": [224, 224],
    },
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The defaults of the schema are the paper's release.
    "paper": {},
    # Chosen by measurement for two CPU cores; benchmarks/RESULTS.md says how.
    "fast": {
        "data.spacing_mm": 2.0,
        "data.size_px": [96, 96],
        "augment.rotation_deg": 30.0,
        "augment.scale": 0.15,
        "augment.brightness": 0.1,
        "augment.contrast": 0.1,
        "augment.noise": 0.05,
        "segmentor.width": 12,
        "segmentor.norm_momentum": 0.1,
        "discriminator.width": 12,
        "loss.adversarial": 0.4,
        "loss.adversarial_unlabelled": 0.0,
        "optim.lr": 2e-3,
        "optim.lr_min": 2e-5,
        "optim.lr_discriminator": 2e-4,
        "optim.schedule": "cosine",
        "optim.epochs": 30,
        "train.validate_every": 5,
        "train.validate_every_late": 5,
    },
    "best": {},
}


def preset(dataset: str, name: str) -> Config:
    """The configuration of preset `name` for `dataset`. Raises ConfigError naming the known ones."""
    if dataset not in DATASETS:
        raise ConfigError(f"--dataset: {dataset!r} is unknown; known are {', '.join(DATASETS)}")
    if name not in PRESETS:
        raise ConfigError(f"--preset: {name!r} is unknown; known are {', '.join(PRESETS)}")
    return override(override(Config(), DATASETS[dataset]), PRESETS[name])
