from __future__ import annotations

import numpy as np

from deploy.precision import calibration_slices


def test_calibration_sees_every_class_and_the_ends_of_the_intensities() -> None:
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
    everything = calibration_slices(images[:5], masks[:5], num_classes=4, count=12)
    assert everything.tolist() == [0, 1, 2, 3, 4]
