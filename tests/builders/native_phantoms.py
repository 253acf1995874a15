"""Phantoms of the data sets in their native formats, and what `maag data check` says of a folder of them."""

from __future__ import annotations

from pathlib import Path

from maag.config.codec import override
from maag.config.schema import Config
from maag.data.catalog import preset
from maag.data.check import check

NATIVE = {"lvsc": 3, "chaos": 3, "chaos-ct": 2, "ppss": 4, "nnunet": 5, "folders": 5}
"""Number of cases by name: so few that each oddity is there."""


def config_of(name: str, directory: Path) -> Config:
    config = preset(name, "fast", directory)
    return override(config, {"data.unlabelled_value": 4}) if name == "folders" else config


def problems(name: str, directory: Path) -> str:
    return "\n".join(check(directory, config_of(name, directory).data).problems)


def first(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]
