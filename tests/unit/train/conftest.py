"""The configuration of short runs."""

from __future__ import annotations

import pytest

from maag.config import codec
from maag.config.schema import Config


@pytest.fixture(scope="session")
def short_config(tiny_config: Config) -> Config:
    """Epochs of three steps, because the time of a step on such small slices hardly depends on their number."""
    return codec.override(tiny_config, {"optim.batch_size": 12})
