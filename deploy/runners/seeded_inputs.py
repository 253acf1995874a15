"""Fixed test images for any segmentor: noise, phantoms of its data set, and blobs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.config.networks import SIZE_MULTIPLE
from maag.data.geometry import prepare_image
from maag.data.phantoms.volumes import Draw, draw_blobs, draw_volume

NOISE = "noise"
PHANTOMS = "phantoms"
"""A trained segmentor labels noise as background with high confidence, whatever is broken inside; not so phantoms."""
BLOBS = "blobs"
"""For data sets that no phantom resembles."""
_SEED = 20200701
_NOISE_BATCHES = (1, 2, 5)  # several, to detect a batch size exported as a constant
_VOLUMES = 2
_SLICES_OF_A_VOLUME = 4


def seeded_inputs(data: DataConfig, *, dynamic_size: bool = False) -> dict[str, NDArray[np.float32]]:
    """Fixed normalised images (N, C, H, W) float32 by name.

    Noise in several batch sizes, and with `dynamic_size` in a second image size; slices of phantoms and of blobs.
    """
    random = np.random.default_rng(_SEED)
    inputs = {
        f"{NOISE}-{size}": random.standard_normal((size, data.channels, *data.size_px), dtype=np.float32)
        for size in _NOISE_BATCHES
    }
    if dynamic_size:
        height, width = (side + SIZE_MULTIPLE for side in data.size_px)
        shape = (2, data.channels, height, width)
        inputs[f"{NOISE}-2-{height}x{width}"] = random.standard_normal(shape, dtype=np.float32)
    return {**inputs, PHANTOMS: _slices(draw_volume, data, random), BLOBS: _slices(draw_blobs, data, random)}


def _slices(draw: Draw, data: DataConfig, random: np.random.Generator) -> NDArray[np.float32]:
    """Evenly spaced slices of a few volumes, prepared as in training."""
    volumes = (prepare_image(draw(data, random), data)[0] for _ in range(_VOLUMES))
    return np.concatenate(
        [images[np.linspace(0, len(images) - 1, _SLICES_OF_A_VOLUME).astype(int)] for images in volumes]
    )
