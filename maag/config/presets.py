"""Named starting points: what a data set is, and how hard to train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from maag.config.codec import override
from maag.config.schema import Config, DataConfig
from maag.errors import ConfigError

DATASETS: Mapping[str, Mapping[str, Any]] = {
    "acdc": {
        "data.dataset": "acdc",
        "data.classes": ["background", "RV", "MYO", "LV"],
        "data.unlabelled_value": 4,
        "data.spacing_mm": 1.5117105,
        "data.size_px": [224, 224],
    },
    "lvsc": {
        "data.dataset": "lvsc",
        "data.classes": ["background", "MYO"],
        "data.unlabelled_value": 2,
        "data.spacing_mm": 1.45,
        "data.size_px": [224, 224],
    },
    "chaos": {
        "data.dataset": "chaos",
        "data.classes": ["background", "liver", "right kidney", "left kidney", "spleen"],
        "data.unlabelled_value": 5,
        "data.spacing_mm": 1.61,
        "data.size_px": [192, 192],
    },
    "chaos-ct": {
        "data.dataset": "chaos-ct",
        "data.classes": ["background", "liver"],
        "data.unlabelled_value": 2,
        "data.spacing_mm": 1.5,
        "data.size_px": [256, 256],
    },
    "ppss": {
        "data.dataset": "ppss",
        "data.classes": [
            *("background", "hair", "face", "upper clothes", "lower clothes", "arms", "legs", "shoes"),
        ],
        "data.channels": 3,
        "data.unlabelled_value": 8,
        "data.spacing_mm": 1.0,
        "data.size_px": [160, 80],
        "data.normalization": "unit",
    },
    # Classes, channels and grid of the next two are read from the data.
    "nnunet": {"data.dataset": "nnunet"},
    "folders": {
        "data.dataset": "folders",
        "data.classes": ["background", "foreground"],
        "data.unlabelled_value": None,
    },
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The defaults of the schema are the paper's release.
    "paper": {},
    # Chosen by measurement for two CPU cores; benchmarks/RESULTS.md says how.
    "fast": {
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


# The heart lies in the middle of its image, so its fast grid may crop; others must see all of theirs.
_FAST_GRIDS: Mapping[str, Mapping[str, Any]] = {
    "acdc": {"data.spacing_mm": 2.0, "data.size_px": [96, 96]},
    "lvsc": {"data.spacing_mm": 2.0, "data.size_px": [96, 96]},
}
_FAST_SIDE_PX = 96


def preset(dataset: str, name: str, from_data: Mapping[str, Any] | None = None) -> Config:
    """The configuration of preset `name` for `dataset`.

    Args:
        dataset: a name in DATASETS.
        name: a name in PRESETS.
        from_data: dotted settings that the data themselves tell; they go before those of DATASETS.

    Raises ConfigError naming the known ones.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"--dataset: {dataset!r} is unknown; known are {', '.join(DATASETS)}")
    if name not in PRESETS:
        raise ConfigError(f"--preset: {name!r} is unknown; known are {', '.join(PRESETS)}")
    config = override(Config(), {**DATASETS[dataset], **(from_data or {})})
    grid = _FAST_GRIDS.get(dataset, _coarser(config.data)) if name == "fast" else {}
    return override(config, {**PRESETS[name], **grid})


def _coarser(data: DataConfig) -> dict[str, Any]:
    """The same field of view on a grid whose longer side is short enough for a CPU."""
    factor = max(1.0, max(data.size_px) / _FAST_SIDE_PX)
    return {
        "data.spacing_mm": data.spacing_mm * factor,
        "data.size_px": [16 * math.ceil(side / factor / 16) for side in data.size_px],
    }
