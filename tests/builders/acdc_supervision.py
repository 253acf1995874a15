"""Supervision of prepared data by ACDC's split, with or without augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maag.config import codec
from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.datasets.acdc import SPLIT0
from maag.data.slices.supervision import Supervision, supervise
from maag.data.split_making import make_split
from maag.data.splits import Split


def make_supervision(prepared: PreparedData, config: Config) -> tuple[Split, Supervision]:
    split = make_split(prepared.patients, config.data, SPLIT0)
    return split, supervise(prepared, split, config)


def without_augmentation(config: Config, changes: Mapping[str, Any]) -> Config:
    """A configuration with these changes and without augmentation, so that slices can be identified."""
    names = ("rotation_deg", "translation", "scale", "flip", "brightness", "contrast", "noise")
    return codec.override(config, {**{f"augment.{name}": 0 for name in names}, **changes})
