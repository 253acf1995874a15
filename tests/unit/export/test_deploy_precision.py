"""Calibration batches, and the limits of fp16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_artifact import write_tiny_graph

from deploy.exporting.activations import largest_activation, require_room_in_fp16
from deploy.exporting.precision import calibration_slices
from maag.errors import ExportError


def test_calibration_slices_cover_every_class_and_the_extreme_intensities() -> None:
    random = np.random.default_rng(0)
    images = random.normal(size=(200, 1, 8, 8)).astype(np.float32)
    images += np.arange(200, dtype=np.float32)[:, None, None, None]
    masks = np.zeros((200, 8, 8), np.uint8)
    masks[17, :2], masks[18, :1], masks[90] = 1, 1, 2
    chosen = calibration_slices(images, masks, num_classes=4, count=12)
    assert len(chosen) == len(set(chosen.tolist())) == 12
    assert {17, 90, 0} <= set(chosen.tolist())
    means = images[chosen].mean(axis=(1, 2, 3))
    assert means.min() < 3
    assert means.max() > 196
    everything = calibration_slices(images[:5], masks[:5], num_classes=4, count=12)
    assert everything.tolist() == [0, 1, 2, 3, 4]


def test_the_largest_activation_includes_tensors_inside_the_graph(tmp_path: Path) -> None:
    model = onnx.load(write_tiny_graph(tmp_path / "model.onnx"))
    images = np.zeros((11, 1, 16, 32), np.float32)
    images[10, 0, 3, 4] = -70000  # in the second batch; leaves the graph as a probability
    assert largest_activation(model, [np.ones((1, 1, 16, 32), np.float32), images]) == 70000
    assert largest_activation(model, [images[:10]]) == 0.5


@pytest.mark.parametrize(("largest", "fits"), [(65000.0, True), (65504.0, False), (1e9, False), (float("nan"), False)])
def test_activations_beyond_the_fp16_range_are_refused(largest: float, fits: bool) -> None:
    if fits:
        require_room_in_fp16(largest)
        return
    with pytest.raises(ExportError, match="the maximum of fp16 is 65504, but activations reach"):
        require_room_in_fp16(largest)
