from __future__ import annotations

import pytest

from maag.config import codec
from maag.config.presets import PRESETS
from maag.data.catalog import preset
from tune.space import SPACE


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("sample", range(20))
def test_every_sample_is_a_valid_configuration(name: str, sample: int) -> None:
    changes = {path: distribution.sample() for path, distribution in SPACE.items()}
    config = codec.override(preset("acdc", name), changes)
    plain = codec.to_dict(config)
    for path, value in changes.items():
        section, key = path.split(".")
        assert plain[section][key] == value
