"""Presets: each builds for every data set and is selected by its name."""

from __future__ import annotations

import click
import pytest

from maag.cli.train import train_command
from maag.config import codec
from maag.config.presets import PRESETS, apply_preset
from maag.data.catalog import READERS, preset
from maag.errors import ConfigError


@pytest.mark.parametrize("dataset", READERS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_for_every_data_set(dataset: str, name: str) -> None:
    config = preset(dataset, name)
    assert config.data.dataset == dataset
    assert codec.from_dict(codec.to_dict(config)) == config


def test_preset_has_settings_specific_to_a_data_set() -> None:
    paper, best = preset("acdc", "paper"), preset("acdc", "best")
    assert (paper.data.size_px, best.data.size_px) == ((224, 224), (160, 160))
    assert paper.data.spacing_mm == best.data.spacing_mm
    assert (paper.loss.class_weights, best.loss.class_weights) == (1.0, 0.0)
    assert preset("chaos", "best").loss.class_weights == 0.5
    assert [preset(name, "best").teacher.gates for name in ("acdc", "lvsc", "chaos")] == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("dataset", READERS)
def test_best_fast_has_the_size_of_fast_and_the_training_of_best(dataset: str) -> None:
    small, fast, best = (preset(dataset, name) for name in ("best-fast", "fast", "best"))
    for part in ("data", "segmentor", "discriminator", "gates"):
        assert getattr(small, part) == getattr(fast, part)
    for part in ("augment", "loss", "teacher"):
        assert getattr(small, part) == getattr(best, part)


def test_command_line_offers_every_preset() -> None:
    (option,) = [each for each in train_command.params if each.name == "preset"]
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == set(PRESETS)


def test_unknown_presets_and_data_sets_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--preset: 'none' is unknown; known are paper, "):
        preset("acdc", "none")
    with pytest.raises(ConfigError, match=r"data set 'none' is unknown; known are acdc, "):
        preset("none", "paper")


@pytest.mark.parametrize(
    ("size_px", "spacing_mm", "coarse_px", "coarse_mm"),
    [([512, 352], 0.75, (96, 80), 4.0), ([192, 192], 1.5, (96, 96), 3.0), ([64, 32], 2.0, (64, 32), 2.0)],
)
def test_cpu_preset_keeps_the_field_of_view_and_is_never_finer(
    size_px: list[int], spacing_mm: float, coarse_px: tuple[int, int], coarse_mm: float
) -> None:
    data = apply_preset("fast", {"data.size_px": size_px, "data.spacing_mm": spacing_mm}, {}).data
    assert data.size_px == coarse_px
    assert data.spacing_mm == pytest.approx(coarse_mm)
