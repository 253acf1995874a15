"""Random augmentation of slices and their labels, in batches, on the tensors' device."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from maag.config.data import AugmentConfig

_ELASTIC_POINTS = 5
"""Control points per side of an elastic deformation."""
_SAMPLING = {"linear": "bilinear", "cubic": "bicubic"}


def random_affines(count: int, size_px: tuple[int, int], config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Draw `count` random rotations, shifts, zooms and flips.

    Returns:
        (count, 2, 3) float32 on the generator's device: maps from output to input coordinates in [-1, 1], x first.
    """
    device = generator.device
    angles = random_angles(count, config.rotation_deg, generator)
    zoom = 1 + _uniform(count, config.scale, generator).view(-1, 1, 1)
    shift = 2 * config.translation * (2 * torch.rand(count, 2, generator=generator, device=device) - 1)
    mirror = 1 - 2 * (torch.rand(count, 2, generator=generator, device=device) < config.flip).float()
    linear = rotations(angles, size_px)[:, :, :2] / zoom * mirror[:, None]
    return torch.cat([linear, shift[:, :, None]], dim=2)


def random_angles(count: int, limit_deg: float, generator: torch.Generator) -> Tensor:
    """Draw (count,) float32 angles in radians, uniform within ± `limit_deg` degrees."""
    return _uniform(count, math.radians(limit_deg), generator)


def rotations(angles: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Rotations of slices about their centre by (N,) `angles` in radians: (N, 2, 3), as `random_affines`."""
    # Coordinates are relative to each side, so the aspect ratio makes this a rotation of pixels.
    aspect = size_px[0] / size_px[1]
    cos, sin, zero = torch.cos(angles), torch.sin(angles), torch.zeros_like(angles)
    rows = torch.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero], dim=1)
    return rows.view(-1, 2, 3)


def random_displacements(count: int, config: AugmentConfig, generator: torch.Generator) -> Tensor | None:
    """Draw displacements of the control points of `count` elastic deformations; None, without drawing, if disabled.

    Returns:
        (count, 2, 5, 5) float32 on the generator's device, in coordinates in [-1, 1], x first.
    """
    if config.elastic == 0:
        return None
    shape = (count, 2, _ELASTIC_POINTS, _ELASTIC_POINTS)
    return 2 * config.elastic * torch.randn(shape, generator=generator, device=generator.device)


def sampling_grids(affines: Tensor, displacements: Tensor | None, size_px: tuple[int, int]) -> Tensor:
    """Input coordinates of each output pixel: (N, H, W, 2) float in [-1, 1], x first."""
    grids = affine_grid(affines, [len(affines), 1, *size_px], align_corners=False)
    if displacements is None:
        return grids
    smooth = interpolate(displacements, size=size_px, mode="bicubic", align_corners=True)
    return grids + smooth.permute(0, 2, 3, 1)


def warp_images(images: Tensor, grids: Tensor, interpolation: Literal["linear", "cubic"]) -> Tensor:
    """Resample (N, C, H, W) float images; the outside repeats the edge."""
    return grid_sample(images, grids, mode=_SAMPLING[interpolation], padding_mode="border", align_corners=False)


def warp_probabilities(probabilities: Tensor, grids: Tensor) -> Tensor:
    """Resample (N, num_classes, H, W) probabilities bilinearly; the outside is 0 for every class."""
    return grid_sample(probabilities, grids, mode="bilinear", padding_mode="zeros", align_corners=False)


def warp_labels(labels: Tensor, grids: Tensor, *, fill: int) -> Tensor:
    """Resample (N, H, W) uint8 labels by nearest neighbour; the outside is `fill`."""
    # The outside is sampled as 0, so labels are shifted by one to distinguish it from label 0.
    shifted = grid_sample(
        labels[:, None].float() + 1, grids, mode="nearest", padding_mode="zeros", align_corners=False
    )[:, 0]
    return torch.where(shifted == 0, float(fill), shifted - 1).to(torch.uint8)


class IntensityChanges(NamedTuple):
    """Random intensity changes of N slices."""

    contrast: Tensor
    """(N, 1, 1, 1) factors."""
    brightness: Tensor
    """(N, 1, 1, 1) summands."""
    noise: Tensor
    """(N, C, H, W) summands."""
    gamma: Tensor | None = None
    """(N, 1, 1, 1) exponents."""
    boxes: Tensor | None = None
    """(N, 2, 2): half the height and width of the cut-out box, then its centre (y, x), as fractions of the image."""


def random_intensities(
    shape: tuple[int, int, int, int],
    config: AugmentConfig,
    generator: torch.Generator,
    noise_generator: torch.Generator | None = None,
) -> IntensityChanges:
    """Draw intensity changes per slice, and noise per pixel, for float images of `shape` (N, C, H, W).

    The noise comes from `noise_generator`, on its device; by default from `generator` as well.
    """
    count, per_slice = shape[0], (-1, 1, 1, 1)
    contrast = 1 + _uniform(count, config.contrast, generator).view(per_slice)
    brightness = _uniform(count, config.brightness, generator).view(per_slice)
    noise_generator = noise_generator or generator
    noise = config.noise * torch.randn(shape, generator=noise_generator, device=noise_generator.device)
    gamma = boxes = None
    if config.gamma:
        gamma = torch.exp(_uniform(count, -math.log(1 - config.gamma), generator)).view(per_slice)
    if config.cutout:
        boxes = torch.rand(2, count, 2, generator=generator, device=generator.device).transpose(0, 1).contiguous()
        boxes[:, 0] *= config.cutout / 2
    return IntensityChanges(contrast, brightness, noise, gamma, boxes)


def change_intensities(images: Tensor, changes: IntensityChanges) -> Tensor:
    """Apply `changes` to (N, C, H, W) float images; cut-out boxes become 0, the median of normalised intensities."""
    if changes.gamma is not None:
        low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
        span = (high - low).clamp(min=torch.finfo(images.dtype).eps)
        images = low + span * ((images - low) / span).pow(changes.gamma)
    images = images * changes.contrast + changes.brightness + changes.noise
    return images if changes.boxes is None else images * _outside(changes.boxes, images.shape[2], images.shape[3])


def _outside(boxes: Tensor, height: int, width: int) -> Tensor:
    """(N, 1, H, W) float: 0 in the boxes, see `IntensityChanges`, 1 outside."""
    half, centre = boxes.unbind(dim=1)
    inside = [
        ((torch.arange(size, device=boxes.device) + 0.5) / size - centre[:, axis, None]).abs() < half[:, axis, None]
        for axis, size in enumerate((height, width))
    ]
    return 1 - (inside[0][:, None, :, None] & inside[1][:, None, None, :]).float()


def _uniform(count: int, limit: float, generator: torch.Generator) -> Tensor:
    return limit * (2 * torch.rand(count, generator=generator, device=generator.device) - 1)
