"""From a volume's own grid to the training grid, and the exact way back. Each transform beside its inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from maag.config.data import DataConfig
from maag.data.files.volume import Volume
from maag.errors import DataError
from maag.labels import BACKGROUND, IGNORE

_MAX_RESIZED_PIXELS = 2**30  # 4 GiB: a thousand slices of 1024 x 1024
_ROUNDING_PX = 1e-4
"""Headers hold spacings in 32 bits: 0.7 mm is 0.69999999, and 512 pixels of it are not 511."""
_COARSE = 2.0
"""Source pixels along a training pixel."""
_SLICES_AT_ONCE = 16
"""Of strokes, which have 32 bits a pixel and class on their way."""
_CONSTANT = 1e-5
"""Of the values: cubic weights in 32 bits add up to 1 but for some 1e-7."""
_LEAST_MIDDLE = 1e-3
"""Of p95 - p5, for the inter-quartile range; images that fill their frame have some hundred times as much."""

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Grid:
    """How the slices of one volume lie on the training grid: resized in-plane, then padded or cropped at the centre."""

    source_shape: tuple[int, int]
    """Rows and columns of a slice in the file."""
    resized_shape: tuple[int, int]
    """The same at the training spacing."""
    size_px: tuple[int, int]
    """Rows and columns of the training grid."""

    @classmethod
    def plan(
        cls,
        source_shape: tuple[int, int],
        source_spacing_mm: tuple[float, float],
        spacing_mm: float,
        size_px: tuple[int, int],
    ) -> Grid:
        """The grid of slices of `source_shape` (rows, columns) and `source_spacing_mm` (the same order)."""
        resized = [
            max(1, int(length * source / spacing_mm + _ROUNDING_PX))
            for length, source in zip(source_shape, source_spacing_mm, strict=True)
        ]
        return cls(source_shape, (resized[0], resized[1]), size_px)


def prepare_image(volume: Volume, data: DataConfig) -> tuple[NDArray[np.float32], Grid]:
    """A volume as the segmentor sees it: (Z, C, H, W) float32, each channel normalised, and its grid.

    Raises as `plan_grid`.
    """
    grid = plan_grid(volume, data)
    rule = _NORMALIZATIONS[data.normalization]
    return np.stack([rule(image_to_grid(channel, grid)) for channel in volume.voxels], axis=1), grid


def plan_grid(volume: Volume, data: DataConfig) -> Grid:
    """How the volume's slices lie on the training grid.

    Raises DataError when it has another number of channels than `data.channels`, or would be too large at the training
    spacing.
    """
    if len(volume.voxels) != data.channels:
        raise DataError(
            f"the image has {len(volume.voxels)} channels, data.channels says {data.channels}; correct one of them"
        )
    _, height, width = volume.shape
    grid = Grid.plan((height, width), volume.spacing_mm[1:], data.spacing_mm, data.size_px)
    if len(volume.voxels[0]) * math.prod(grid.resized_shape) > _MAX_RESIZED_PIXELS:
        raise DataError(
            f"the image's slices of {height} x {width} pixels of {volume.spacing_mm[1]:g} x {volume.spacing_mm[2]:g} "
            f"mm are {grid.resized_shape[0]} x {grid.resized_shape[1]} pixels at data.spacing_mm = "
            f"{data.spacing_mm:g}, more than can be computed with; correct the spacing in its header"
        )
    return grid


def image_to_grid(voxels: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """(Z, Y, X) to (Z, H, W) float32: cubic without anti-aliasing, padded with the edge."""
    return _fit(_resize(voxels, grid.resized_shape, "bicubic"), grid.size_px, None)


def labels_to_grid(labels: NDArray[np.uint8], grid: Grid, padding_label: int) -> NDArray[np.uint8]:
    """(Z, Y, X) to (Z, H, W) uint8: nearest by centres, as the image is, padded with `padding_label`."""
    return _fit(_resize(labels, grid.resized_shape, "nearest-exact"), grid.size_px, padding_label)


def scribbles_to_grid(scribbles: NDArray[np.uint8], grid: Grid, padding_label: int) -> NDArray[np.uint8]:
    """(Z, Y, X) to (Z, H, W) uint8: as `labels_to_grid`, and where that would lose most of a thin stroke, more.

    On a grid that is much coarser than the slices, most centres lie beside a line of one pixel. There a pixel also
    takes the class that alone has strokes in it, if these fill as much of it as half such a line across it.
    """
    resized = _resize(scribbles, grid.resized_shape, "nearest-exact")
    coarseness = math.sqrt(math.prod(grid.source_shape) / math.prod(grid.resized_shape))
    if coarseness > _COARSE:
        for start in range(0, len(scribbles), _SLICES_AT_ONCE):
            some = slice(start, start + _SLICES_AT_ONCE)
            alone = _alone(scribbles[some], grid, 0.5 / coarseness)
            resized[some] = np.where(resized[some] == IGNORE, alone, resized[some])
    return _fit(resized, grid.size_px, padding_label)


def _alone(scribbles: NDArray[np.uint8], grid: Grid, least: float) -> NDArray[np.uint8]:
    """(Z, *resized_shape) the class that alone has strokes in a pixel and fills at least a part of it; else IGNORE."""
    drawn = np.full((len(scribbles), *grid.resized_shape), IGNORE, np.uint8)
    num_classes = np.zeros_like(drawn)
    for value in set(np.unique(scribbles).tolist()) - {IGNORE}:
        strokes = torch.from_numpy((scribbles == value).astype(np.float32))[:, None]
        part = interpolate(strokes, size=grid.resized_shape, mode="area")[:, 0].numpy()
        drawn[part > least] = value
        num_classes += part > 0
    drawn[num_classes != 1] = IGNORE
    return drawn


def labels_to_source(labels: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    """(Z, H, W) to (Z, Y, X) uint8: the inverse of `labels_to_grid`, background where it was cropped."""
    return _resize(_fit(labels, grid.resized_shape, BACKGROUND), grid.source_shape, "nearest-exact")


def scores_to_source(scores: NDArray[np.float32] | Tensor, grid: Grid) -> NDArray[np.float32]:
    """Class probabilities (Z, num_classes, H, W) to (Z, num_classes, Y, X) float32, bilinearly.

    Where the grid was cropped the background has probability 1.
    """
    planes = np.asarray(scores, dtype=np.float32)
    num_slices, num_classes = planes.shape[:2]
    fitted = _fit(planes.reshape(-1, *planes.shape[2:]), grid.resized_shape, 0)
    fitted = fitted.reshape(num_slices, num_classes, *grid.resized_shape)
    outside = ~_fit(np.ones((1, *grid.size_px), bool), grid.resized_shape, False)[0]
    fitted[:, BACKGROUND, outside] = 1
    resized = interpolate(torch.from_numpy(fitted), size=grid.source_shape, mode="bilinear", align_corners=False)
    source: NDArray[np.float32] = resized.numpy()
    return source


def inside(grid: Grid) -> NDArray[np.bool_]:
    """(H, W) bool: where the training grid holds the image, and not padding."""
    held: NDArray[np.bool_] = _fit(np.ones((1, *grid.resized_shape), bool), grid.size_px, False)[0]
    return held


def inside_in_source(grid: Grid) -> NDArray[np.bool_]:
    """(Y, X) bool: which pixels of a slice lie on the training grid, and are not cropped."""
    held: NDArray[np.bool_] = labels_to_source(np.ones((1, *grid.size_px), np.uint8), grid)[0] != BACKGROUND
    return held


def normalize(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip to [p5, p95], subtract the median, divide by the inter-quartile range; statistics before clipping.

    Where most voxels are alike, as around an organ cut out of its image, that range is nothing, or a rounding error of
    the resampling: there p95 - p5 divides. A constant image becomes zeros.
    """
    p5, p25, median, p75, p95 = np.percentile(voxels, (5, 25, 50, 75, 95))
    clipped = p95 - p5
    if clipped <= _CONSTANT * max(abs(p5), abs(p95)):
        return np.zeros_like(voxels)
    middle = p75 - p25
    width = middle if middle > _LEAST_MIDDLE * clipped else clipped
    normalised = np.empty(voxels.shape, np.float32)
    for target, part in zip(normalised, voxels, strict=True):
        # Slice by slice, as the statistics have 64 bits, and so would three copies of the whole volume.
        target[...] = (np.clip(part, p5, p95) - median) / width
    return normalised


def _bytes_to_unit(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    return voxels / np.float32(255)


_NORMALIZATIONS = {"robust": normalize, "unit": _bytes_to_unit}


def _resize(planes: NDArray[Scalar], shape: tuple[int, int], mode: str) -> NDArray[Scalar]:
    if planes.shape[1:] == shape:
        return planes
    # Writable, for torch warns of the frames of a cine, which nibabel unpacks into memory that is not.
    tensor = torch.from_numpy(np.require(planes, np.float32, ["C", "W"]))[:, None]
    # Images as OpenCV's CUBIC (a = -0.75), which the release used. Not labels as its NEAREST: that takes the floor of a
    # coordinate, and laid masks and strokes half a pixel beside the image, which cost .045 Dice on the way back.
    resized = interpolate(tensor, size=shape, mode=mode, align_corners=False if mode == "bicubic" else None)
    return resized[:, 0].numpy().astype(planes.dtype)


def _fit(planes: NDArray[Scalar], shape: tuple[int, int], fill: int | bool | None) -> NDArray[Scalar]:
    """Crop and pad (Z, Y, X) at the centre to (Z, *shape); `fill` None repeats the edge. Its own inverse inside."""
    crop = [slice(None)]
    pad = [(0, 0)]
    for have, want in zip(planes.shape[1:], shape, strict=True):
        before = abs(have - want) // 2
        crop.append(slice(before, before + want) if have > want else slice(None))
        pad.append((before, want - have - before) if want > have else (0, 0))
    cropped = planes[tuple(crop)]
    if fill is None:
        return np.pad(cropped, pad, mode="edge")
    return np.pad(cropped, pad, constant_values=fill)
