"""Parity is meaningful only with foreground: losing it is refused, and having almost none is reported."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from deploy.artifact.engine import Precision
from deploy.runners.parity import FEWEST_PIXELS, compare, weakness
from deploy.runners.seeded_inputs import seeded_inputs
from maag.config.codec import override
from maag.config.schema import Config
from maag.errors import ExportError

Images = NDArray[np.float32]


class Trained:
    """Confidently labels bright regions as 1, so nothing in noise; `dark` sees no foreground at all."""

    def __init__(self, name: str, *, dark: bool = False, doubt: float = 0.0) -> None:
        self.name = name
        self.dark = dark
        self.doubt = doubt

    def __call__(self, images: Images) -> Images:
        bright = uniform_filter(images[:, 0], (1, 7, 7)) > 0.75
        foreground = np.where(bright & (not self.dark), 0.99, 0.01) if not self.doubt else bright * 0.1 + self.doubt
        return np.stack([1 - foreground, foreground], axis=1).astype(np.float32)


LARGER = override(Config(), {"data.classes": ["background", "a"], "data.size_px": [96, 96]}).data


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_candidate_that_loses_all_foreground_is_refused(precision: Precision) -> None:
    inputs = seeded_inputs(LARGER)
    noise = {name: images for name, images in inputs.items() if name.startswith("noise")}
    compare(Trained("one"), Trained("two", dark=True), noise, precision)
    with pytest.raises(ExportError, match="two against one"):
        compare(Trained("one"), Trained("two", dark=True), inputs, precision)


def test_a_lost_class_is_named_in_the_refusal() -> None:
    with pytest.raises(ExportError, match=r"confidently class 1, 0 are labelled so, a Dice of 0\.0000 \(limit 0\.95\)"):
        compare(Trained("one"), Trained("two", dark=True), seeded_inputs(LARGER), "int8")


class Spot:
    """Confidently labels each bright pixel as foreground; `blind` labels none."""

    def __init__(self, name: str, *, blind: bool = False) -> None:
        self.name = name
        self.blind = blind

    def __call__(self, images: Images) -> Images:
        foreground = np.where((images[:, 0] > 0) & (not self.blind), 0.95, 0.05)
        return np.stack([1 - foreground, foreground], axis=1).astype(np.float32)


@pytest.mark.parametrize(("num_pixels", "is_enough"), [(49, False), (50, True)])
def test_parity_needs_fifty_confident_pixels_of_a_class(num_pixels: int, is_enough: bool) -> None:
    images = np.full((1, 1, 32, 32), -1, np.float32)
    images[0, 0].ravel()[:num_pixels] = 1
    inputs = {"blobs": images}
    assert (weakness(compare(Spot("one"), Spot("two"), inputs)) is None) == is_enough
    if is_enough:
        with pytest.raises(ExportError, match="of 50 pixels that are confidently class 1, 0 are labelled so"):
            compare(Spot("one"), Spot("two", blind=True), inputs, "int8")
    else:
        compare(Spot("one"), Spot("two", blind=True), inputs, "int8")


def test_uncertain_labels_count_only_on_images_of_the_data_set() -> None:
    one, two = Trained("one", doubt=0.48), Trained("two", doubt=0.38)
    inputs = seeded_inputs(LARGER)
    assert min(row.label_agreement for row in compare(one, two, inputs, "int8")) < 0.98
    with pytest.raises(ExportError, match="two against one on validation"):
        compare(one, two, {"validation": inputs["phantoms"]}, "int8")


def test_parity_without_foreground_is_reported_as_weak() -> None:
    inputs = seeded_inputs(LARGER)
    rows = compare(Trained("one"), Trained("two"), inputs)
    counted = [row.foreground_pixels for row in rows]
    assert counted[:3] == [0, 0, 0]
    assert sum(count for count in counted if count) > FEWEST_PIXELS
    assert weakness(rows) is None
    blind = compare(Trained("one", dark=True), Trained("two", dark=True), inputs)
    assert "PyTorch labels almost no foreground" in str(weakness(blind))
    without_counts = [dataclasses.replace(row, foreground_pixels=None) for row in blind]
    assert weakness(without_counts) is None
