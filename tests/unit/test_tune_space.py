from __future__ import annotations

import json

import pytest

from maag.config import codec
from maag.config.presets import PRESETS
from maag.data.catalog import preset
from maag.models.build import build_discriminator, build_segmentor
from tune.space import CHANGEABLE, SPACE


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("sample", range(20))
def test_every_sample_is_a_valid_configuration(name: str, sample: int) -> None:
    changes = {path: distribution.sample() for path, distribution in SPACE.items()}
    config = codec.override(preset("acdc", name), changes)
    plain = codec.to_dict(config)
    for path, value in changes.items():
        section, key = path.split(".")
        assert plain[section][key] == (json.loads(value) if isinstance(value, str) else value)


def test_what_changes_on_the_way_makes_no_tensor() -> None:
    assert set(CHANGEABLE) <= set(SPACE)
    config = preset("acdc", "fast")
    changed = codec.override(config, {path: SPACE[path].sample() for path in CHANGEABLE})
    for build in (build_segmentor, build_discriminator):
        shapes = [{name: tensor.shape for name, tensor in build(one).state_dict().items()} for one in (config, changed)]
        assert shapes[0] == shapes[1]
