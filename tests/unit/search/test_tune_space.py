"""The search space: valid samples, and which settings are searched."""

from __future__ import annotations

import json

import pytest

from maag.config import codec
from maag.config.presets import PRESETS
from maag.data.catalog import preset
from maag.errors import ConfigError
from maag.models.build import build_discriminator, build_segmentor
from tune.space import CHANGEABLE, SPACE, explain, searched, starting_point


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("sample", range(20))
def test_every_sample_is_a_valid_configuration(name: str, sample: int) -> None:
    changes = {path: distribution.sample() for path, distribution in SPACE.items()}
    config = codec.override(preset("acdc", name), changes)
    plain = codec.to_dict(config)
    for path, value in changes.items():
        section, key = path.split(".")
        assert plain[section][key] == (json.loads(value) if isinstance(value, str) else value)


def test_settings_changed_during_training_do_not_change_tensor_shapes() -> None:
    assert set(CHANGEABLE) <= set(SPACE)
    config = preset("acdc", "fast")
    changed = codec.override(config, {path: SPACE[path].sample() for path in CHANGEABLE})
    for build in (build_segmentor, build_discriminator):
        shapes = [{name: tensor.shape for name, tensor in build(one).state_dict().items()} for one in (config, changed)]
        assert shapes[0] == shapes[1]


def test_fixed_settings_are_not_searched_and_current_settings_are_a_trial() -> None:
    config = codec.override(preset("acdc", "fast"), {"optim.lr": 0.03})
    space = {path: SPACE[path] for path in searched(config, {"optim.lr", "data.size_px"})}
    assert set(space) == set(SPACE) - {"optim.lr"}
    assert starting_point(config, space) is not None
    (explanation,) = explain(config, {"optim.lr", "data.size_px"}, space)
    assert explanation.startswith("All trials have optim.lr as --set gives them")
    assert starting_point(config, SPACE) is None
    assert "optim.lr is outside the search space" in explain(config, (), SPACE)[0]
    both = codec.override(config, {"loss.supervised": 1e6})
    assert "loss.supervised, optim.lr are outside the search space" in explain(both, (), SPACE)[0]
    assert explain(preset("acdc", "fast"), {"data.size_px"}, SPACE) == []


def test_without_a_discriminator_its_settings_are_not_searched() -> None:
    config = codec.override(preset("acdc", "fast"), {"loss.adversarial": 0})
    names = searched(config, ())
    assert not [name for name in names if "adversarial" in name or "discriminator" in name]
    assert {"loss.supervised", "gates.levels", "optim.lr"} <= set(names)
    assert "There is no discriminator" in explain(config, (), {name: SPACE[name] for name in names})[0]


def test_learning_rates_below_lr_min_are_not_searched() -> None:
    config = codec.override(preset("acdc", "fast"), {"optim.lr_min": 1e-4, "optim.lr": 1e-2})
    with pytest.raises(ConfigError, match=r"optim\.lr_min=0\.0001 is above 5e-05, the lowest optim\.lr"):
        searched(config, ())
    assert "optim.lr" not in searched(config, ["optim.lr"])


def test_search_without_settings_to_vary_is_refused() -> None:
    config = preset("acdc", "fast")
    assert searched(config, CHANGEABLE)
    with pytest.raises(ConfigError, match="nothing is left to search"):
        searched(config, CHANGEABLE, on_the_way=True)
