"""Random changes of slices and their labels, batched, on whatever device they are on."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from maag.config.schema import AugmentConfig


def random_affines(count: int, size_px: tuple[int, int], config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Draw `count` rotations, shifts, zooms and flips.

    Returns:
        (count, 2, 3) float32 on the generator's device: maps from output to input coordinates in [-1, 1], x first.
    """
    device = generator.device
    angle = _uniform(count, math.radians(config.rotation_deg), generator)
    zoom = 1 + _uniform(count, config.scale, generator)
    shift = 2 * config.translation * (2 * torch.rand(count, 2, generator=generator, device=device) - 1)
    mirror = 1 - 2 * (torch.rand(count, 2, generator=generator, device=device) < config.flip).float()

    # Coordinates are relative to each side, so a rotation of pixels is one of height / width in them.
    aspect = size_px[0] / size_px[1]
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = torch.stack(
        [
            torch.stack([cos * mirror[:, 0], -sin * aspect, shift[:, 0]], dim=1),
            torch.stack([sin / aspect * mirror[:, 0], cos, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    rows[:, :, 1] *= mirror[:, 1:2]
    return rows


def warp_images(images: Tensor, affines: Tensor) -> Tensor:
    """Resample (N, C, H, W) float images bilinearly; what comes from outside repeats the edge."""
    grid = affine_grid(affines, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def warp_labels(labels: Tensor, affines: Tensor, *, fill: int) -> Tensor:
    """Resample (N, H, W) uint8 labels to the nearest; what comes from outside is `fill`."""
    grid = affine_grid(affines, [len(labels), 1, *labels.shape[1:]], align_corners=False)
    # Outside is sampled as 0, so labels are moved up by one to tell it from label 0.
    moved_up = grid_sample(
        labels[:, None].float() + 1, grid, mode="nearest", padding_mode="zeros", align_corners=False
    )[:, 0]
    return torch.where(moved_up == 0, moved_up.new_tensor(fill), moved_up - 1).to(torch.uint8)


class IntensityChanges(NamedTuple):
    """What happens to the intensities of N slices."""

    contrast: Tensor
    """(N, 1, 1, 1) factors."""
    brightness: Tensor
    """(N, 1, 1, 1) summands."""
    noise: Tensor
    """(N, C, H, W) summands."""


def random_intensities(
    shape: tuple[int, int, int, int], config: AugmentConfig, generator: torch.Generator
) -> IntensityChanges:
    """Draw contrast and brightness per slice, and noise per pixel, for float images of `shape` (N, C, H, W)."""
    per_slice = (-1, 1, 1, 1)
    return IntensityChanges(
        contrast=1 + _uniform(shape[0], config.contrast, generator).view(per_slice),
        brightness=_uniform(shape[0], config.brightness, generator).view(per_slice),
        noise=config.noise * torch.randn(shape, generator=generator, device=generator.device),
    )


def change_intensities(images: Tensor, changes: IntensityChanges) -> Tensor:
    """Apply `changes` to (N, C, H, W) float images."""
    return images * changes.contrast + changes.brightness + changes.noise


def _uniform(count: int, limit: float, generator: torch.Generator) -> Tensor:
    return limit * (2 * torch.rand(count, generator=generator, device=generator.device) - 1)
