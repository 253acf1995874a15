"""The images on which exported models are compared: the same each time, for every data set."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.runners.seeded_inputs import seeded_inputs
from maag.config.codec import override
from maag.config.data import DataConfig
from maag.config.schema import Config
from maag.data.catalog import READERS, preset

DATA = DataConfig(classes=("background", "a"), size_px=(16, 32))


def test_inputs_are_reproducible_and_of_several_batch_sizes() -> None:
    first, second = seeded_inputs(DATA), seeded_inputs(DATA)
    assert [images.shape for images in first.values()] == [(n, 1, 16, 32) for n in (1, 2, 5, 8, 8)]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_dynamic_size_adds_inputs_of_a_second_size() -> None:
    shapes = [images.shape for images in seeded_inputs(DATA, dynamic_size=True).values()]
    assert shapes == [(1, 1, 16, 32), (2, 1, 16, 32), (5, 1, 16, 32), (2, 1, 32, 48), (8, 1, 16, 32), (8, 1, 16, 32)]


@pytest.mark.parametrize("dataset", READERS)
@pytest.mark.parametrize(("channels", "size"), [(1, [48, 32]), (4, [32, 80])])
def test_every_data_set_has_valid_images(dataset: str, channels: int, size: list[int]) -> None:
    config = (
        preset(dataset, "fast")
        if dataset not in ("folders", "nnunet")
        else override(Config(), {"data.dataset": dataset})
    )
    data = override(config, {"data.channels": channels, "data.size_px": size}).data
    for name, images in seeded_inputs(data).items():
        assert images.shape[1:] == (channels, *size)
        assert images.dtype == np.float32
        assert np.isfinite(images).all()
        assert images.std(axis=(2, 3)).min() > 0, name
        assert np.abs(images).max() < 20


def test_phantoms_of_an_unknown_data_set_fill_the_grid() -> None:
    config = override(Config(), {"data.dataset": "folders", "data.spacing_mm": 0.01, "data.size_px": [64, 64]})
    images = seeded_inputs(config.data)["phantoms"]
    edges = images[:, :, [0, -1]]
    assert np.abs(np.diff(images, axis=3)).max() > 0.5
    assert images.std() > edges.std()
