"""Every setting, and the error that an invalid value raises."""

from __future__ import annotations

import re
from typing import Any

import pytest

from maag.config import codec
from maag.config.schema import Config
from maag.errors import ConfigError

LEAVES = {leaf.path: leaf for leaf in codec.leaves(Config())}
LIMIT_PATTERN = re.compile(r"(>=|<=|>|<) (\S+)")
"""One bound in the type description of a setting."""


def config_error(changes: dict[str, Any]) -> str:
    """The one-line message with which these settings are refused."""
    with pytest.raises(ConfigError) as caught:
        codec.override(Config(), changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)
