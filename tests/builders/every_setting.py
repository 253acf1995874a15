"""Every setting, and what is said of wrong ones."""

from __future__ import annotations

import re
from typing import Any

import pytest

from maag.config import codec
from maag.config.schema import Config
from maag.errors import ConfigError

LEAVES = {leaf.path: leaf for leaf in codec.leaves(Config())}
LIMITS = re.compile(r"(>=|<=|>|<) (\S+)")


def complaint(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        codec.override(Config(), changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)
