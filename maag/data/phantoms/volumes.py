"""Phantom volumes in memory, to run a segmentor without its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from maag.config.data import DataConfig
from maag.data.files.volume import Volume
from maag.data.phantoms.chaos import CT_SPACING_MM, MR_SPACING_MM, draw_ct, draw_mr
from maag.data.phantoms.heart import draw_heart, draw_image, draw_mask, draw_tissue
from maag.data.phantoms.ppss import draw_picture

_DEPTH = 8
_PHASES = {"t1in": "InPhase", "t1out": "OutPhase", "t2spir": "T2SPIR"}
_BLOB_LEVELS = 5
_BRIGHTEST = 255.0

Draw = Callable[[DataConfig, np.random.Generator], Volume]


def draw_volume(data: DataConfig, random: np.random.Generator) -> Volume:
    """A phantom of `data.dataset` with `data.channels` channels; for unknown data sets a heart that fills the grid."""
    return _DRAWN.get(data.dataset, _draw_any)(data, random)


def draw_blobs(data: DataConfig, random: np.random.Generator) -> Volume:
    """Smooth blobs with several intensities in [0, 255] that fill the grid of `data`, the same in each channel."""
    # Widths from an eighth of the grid, like organs, to a few pixels.
    widths = np.geomspace(min(data.size_px) / 8, 2.0, _DEPTH)
    fields = [gaussian_filter(random.standard_normal(data.size_px), width) for width in widths]
    ranks = np.stack([field.ravel().argsort().argsort().reshape(data.size_px) / field.size for field in fields])
    levels = random.permutation(_BLOB_LEVELS) / (_BLOB_LEVELS - 1)
    planes = levels[(ranks * _BLOB_LEVELS).astype(int)] * 0.9 * _BRIGHTEST
    noisy = [np.clip(planes + random.normal(0, 8, planes.shape), 0, _BRIGHTEST) for _ in range(data.channels)]
    return _volume(noisy, data.spacing_mm)


def _draw_heart(data: DataConfig, random: np.random.Generator, side_mm: float | None = None) -> Volume:
    """A heart of its own size, or an image whose longer side is `side_mm`."""
    heart = draw_heart(random)
    mask, tissue = draw_mask(heart, float(random.uniform(0, 0.3))), draw_tissue(heart, random)
    spacing = heart.spacing_mm if side_mm is None else side_mm / max(heart.shape[1:])
    return _volume([draw_image(mask, tissue, random) for _ in range(data.channels)], spacing)


def _draw_any(data: DataConfig, random: np.random.Generator) -> Volume:
    return _draw_heart(data, random, max(data.size_px) * data.spacing_mm)


def _draw_mr(data: DataConfig, random: np.random.Generator) -> Volume:
    return _volume([draw_mr(_PHASES[data.modality], _DEPTH, random)] * data.channels, MR_SPACING_MM)


def _draw_ct(data: DataConfig, random: np.random.Generator) -> Volume:
    return _volume([draw_ct(_DEPTH, random) - 1000.0] * data.channels, CT_SPACING_MM)


def _draw_pedestrians(data: DataConfig, random: np.random.Generator) -> Volume:
    pictures = np.stack([draw_picture(random) for _ in range(_DEPTH)], axis=1)
    return _volume([pictures[channel % len(pictures)] for channel in range(data.channels)], 1.0)


def _volume(channels: list[NDArray[np.generic]], spacing_mm: float) -> Volume:
    affine = np.diag([spacing_mm, spacing_mm, 1.0, 1.0])
    return Volume(np.stack(channels).astype(np.float32), (1.0, spacing_mm, spacing_mm), affine)


_DRAWN: Mapping[str, Draw] = {
    "acdc": _draw_heart,
    "lvsc": _draw_heart,
    "chaos": _draw_mr,
    "chaos-ct": _draw_ct,
    "ppss": _draw_pedestrians,
}
