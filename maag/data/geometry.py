"""From a volume's own grid to the training grid, and the exact inverse."""

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
"""Headers store spacings in 32 bits: 0.7 mm is 0.69999999, and 512 pixels of it must not become 511."""
_COARSE = 2.0
"""Source pixels per side of a training pixel."""
_SLICES_AT_ONCE = 16
"""Of scribbles, which take 32 bits per pixel and class while they are resampled."""
_CONSTANT = 1e-5
"""Relative to the values: cubic weights in 32 bits add up to 1 within some 1e-7."""
_NEGLIGIBLE = 1e-3
"""Weight of a cropped pixel; for sides up to 1200 pixels, rounding of coordinates in 32 bits leaves at most 6e-5."""
_MIN_IQR = 1e-3
"""Of the inter-quartile range, relative to p95 - p5; images that fill their frame have some hundred times as much."""

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Grid:
    """Placement of a volume's slices on the training grid: resized in-plane, then padded or cropped at the centre."""

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
        """The grid for slices of `source_shape` and `source_spacing_mm`, both (rows, columns)."""
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
    """Placement of the volume's slices on the training grid.

    Raises DataError for another number of channels than `data.channels`, and for volumes too large at the training
    spacing.
    """
    if len(volume.voxels) != data.channels:
        raise DataError(
            f"the image has {len(volume.voxels)} channels, data.channels is {data.channels}; correct one of them"
        )
    _, height, width = volume.shape
    grid = Grid.plan((height, width), volume.spacing_mm[1:], data.spacing_mm, data.size_px)
    if len(volume.voxels[0]) * math.prod(grid.resized_shape) > _MAX_RESIZED_PIXELS:
        raise DataError(
            f"the image's slices of {height} x {width} pixels of {volume.spacing_mm[1]:g} x {volume.spacing_mm[2]:g} "
            f"mm are {grid.resized_shape[0]} x {grid.resized_shape[1]} pixels at data.spacing_mm = "
            f"{data.spacing_mm:g}, which is too large; correct the spacing in its header"
        )
    return grid


def image_to_grid(voxels: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """(Z, Y, X) to (Z, H, W) float32: bicubic without anti-aliasing, edge-padded."""
    return _fit(_resize(voxels, grid.resized_shape, "bicubic"), grid.size_px, None)


def labels_to_grid(labels: NDArray[np.uint8], grid: Grid, padding_label: int) -> NDArray[np.uint8]:
    """(Z, Y, X) to (Z, H, W) uint8: nearest neighbour by pixel centres, padded with `padding_label`."""
    return _fit(_resize(labels, grid.resized_shape, "nearest-exact"), grid.size_px, padding_label)


def scribbles_to_grid(scribbles: NDArray[np.uint8], grid: Grid, padding_label: int) -> NDArray[np.uint8]:
    """(Z, Y, X) to (Z, H, W) uint8: as `labels_to_grid`, but without losing thin strokes.

    On a grid much coarser than the slices, most pixel centres miss a line of one pixel. There an unlabelled pixel also
    takes the only class with strokes in it, if these fill more than half of what such a line across it would.
    """
    resized = _resize(scribbles, grid.resized_shape, "nearest-exact")
    coarseness = math.sqrt(math.prod(grid.source_shape) / math.prod(grid.resized_shape))
    if coarseness > _COARSE:
        for start in range(0, len(scribbles), _SLICES_AT_ONCE):
            some = slice(start, start + _SLICES_AT_ONCE)
            thin = _only_class(scribbles[some], grid, 0.5 / coarseness)
            resized[some] = np.where(resized[some] == IGNORE, thin, resized[some])
    return _fit(resized, grid.size_px, padding_label)


def _only_class(scribbles: NDArray[np.uint8], grid: Grid, least: float) -> NDArray[np.uint8]:
    """(Z, *resized_shape) the only class with strokes in a pixel, if they fill more than `least` of it; else IGNORE."""
    labels = np.full((len(scribbles), *grid.resized_shape), IGNORE, np.uint8)
    num_classes = np.zeros_like(labels)
    for value in set(np.unique(scribbles).tolist()) - {IGNORE}:
        strokes = torch.from_numpy((scribbles == value).astype(np.float32))[:, None]
        part = interpolate(strokes, size=grid.resized_shape, mode="area")[:, 0].numpy()
        labels[part > least] = value
        num_classes += part > 0
    labels[num_classes != 1] = IGNORE
    return labels


def labels_to_source(labels: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    """(Z, H, W) to (Z, Y, X) uint8: the inverse of `labels_to_grid`, background where the grid was cropped."""
    return _resize(_fit(labels, grid.resized_shape, BACKGROUND), grid.source_shape, "nearest-exact")


def scores_to_source(scores: NDArray[np.float32] | Tensor, grid: Grid) -> NDArray[np.float32]:
    """Class probabilities (Z, num_classes, H, W) to (Z, num_classes, Y, X) float32, bilinearly.

    Where the grid was cropped the background has probability 1.
    """
    planes = np.asarray(scores, dtype=np.float32)
    num_slices, num_classes = planes.shape[:2]
    fitted = _fit(planes.reshape(-1, *planes.shape[2:]), grid.resized_shape, 0)
    fitted = fitted.reshape(num_slices, num_classes, *grid.resized_shape)
    fitted[:, BACKGROUND, _is_cropped(grid)] = 1
    return _bilinear(fitted, grid.source_shape)


def inside(grid: Grid) -> NDArray[np.bool_]:
    """(H, W) bool: pixels of the training grid that are image, not padding."""
    held: NDArray[np.bool_] = _fit(np.ones((1, *grid.resized_shape), bool), grid.size_px, False)[0]
    return held


def inside_in_source(grid: Grid) -> NDArray[np.bool_]:
    """(Y, X) bool: pixels of a source slice that `scores_to_source` gives probabilities of the training grid alone.

    Beside the edge of a crop, others are interpolated with the background outside.
    """
    cropped = _is_cropped(grid)[None, None].astype(np.float32)
    held: NDArray[np.bool_] = _bilinear(cropped, grid.source_shape)[0, 0] < _NEGLIGIBLE
    return held


def _is_cropped(grid: Grid) -> NDArray[np.bool_]:
    """(rows, columns) bool of `resized_shape`: pixels that are not on the training grid."""
    cropped: NDArray[np.bool_] = ~_fit(np.ones((1, *grid.size_px), bool), grid.resized_shape, False)[0]
    return cropped


def normalize(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip to [p5, p95], subtract the median, divide by the inter-quartile range; statistics before clipping.

    Where most voxels are equal, as around a cut-out organ, that range is zero or a rounding error of the resampling,
    and p95 - p5 is used instead. A constant image becomes zeros.
    """
    p5, p25, median, p75, p95 = np.percentile(voxels, (5, 25, 50, 75, 95))
    span = p95 - p5
    if span <= _CONSTANT * max(abs(p5), abs(p95)):
        return np.zeros_like(voxels)
    iqr = p75 - p25
    width = iqr if iqr > _MIN_IQR * span else span
    normalised = np.empty(voxels.shape, np.float32)
    for target, part in zip(normalised, voxels, strict=True):
        # Slice by slice: the statistics have 64 bits, and so would three copies of the whole volume.
        target[...] = (np.clip(part, p5, p95) - median) / width
    return normalised


def _bytes_to_unit(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    return voxels / np.float32(255)


_NORMALIZATIONS = {"robust": normalize, "unit": _bytes_to_unit}


def _bilinear(planes: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """(N, C, Y, X) to (N, C, *shape)."""
    resized: NDArray[np.float32] = interpolate(
        torch.from_numpy(planes), size=shape, mode="bilinear", align_corners=False
    ).numpy()
    return resized


def _resize(planes: NDArray[Scalar], shape: tuple[int, int], mode: str) -> NDArray[Scalar]:
    if planes.shape[1:] == shape:
        return planes
    # Torch warns of arrays that are not writable, such as the frames of a cine that nibabel unpacks.
    tensor = torch.from_numpy(np.require(planes, np.float32, ["C", "W"]))[:, None]
    # bicubic is OpenCV's CUBIC (a = -0.75), which the paper's release used. Its NEAREST is not used for labels: it
    # takes the floor of a coordinate and shifts labels by half a pixel, which cost .045 Dice at source resolution.
    resized = interpolate(tensor, size=shape, mode=mode, align_corners=False if mode == "bicubic" else None)
    return resized[:, 0].numpy().astype(planes.dtype)


def _fit(planes: NDArray[Scalar], shape: tuple[int, int], fill: int | bool | None) -> NDArray[Scalar]:
    """Crop and pad (Z, Y, X) at the centre to (Z, *shape); `fill` None repeats the edge."""
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
