"""Random augmentation of slices and their labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from maag.config.data import AugmentConfig
from maag.data.slices.augment import (
    change_intensities,
    random_affines,
    random_displacements,
    random_intensities,
    sampling_grids,
    warp_images,
    warp_labels,
    warp_probabilities,
)
from maag.labels import IGNORE

NO_AUGMENTATION = AugmentConfig(rotation_deg=0, translation=0, scale=0, flip=0, brightness=0, contrast=0, noise=0)
SIZE = (24, 40)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pattern() -> Tensor:
    """(2, H, W) uint8 labels without any symmetry."""
    labels = torch.zeros(2, *SIZE, dtype=torch.uint8)
    labels[:, 3:9, 5:18] = 1
    labels[:, 14:20, 25:31] = 2
    labels[1, 4:7, 30:38] = 3
    return labels


def grids_of(affines: Tensor) -> Tensor:
    return sampling_grids(affines, None, SIZE)


def quarter_turn_grids() -> Tensor:
    """Sampling grids of a random rotation by 90° in either direction."""
    config = replace(NO_AUGMENTATION, rotation_deg=90.0)
    for seed in range(2000):
        affines = random_affines(1, SIZE, config, torch.Generator().manual_seed(seed))
        if abs(float(affines[0, 0, 0])) < 1e-3:
            return grids_of(affines)
    raise AssertionError


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_zero_amplitudes_change_nothing(interpolation: Literal["linear", "cubic"]) -> None:
    grids = grids_of(random_affines(2, SIZE, NO_AUGMENTATION, generator()))
    images = torch.randn(2, 3, *SIZE, generator=generator())
    torch.testing.assert_close(warp_images(images, grids, interpolation), images, atol=1e-5, rtol=0)
    assert torch.equal(warp_labels(pattern(), grids, fill=IGNORE), pattern())
    assert torch.equal(
        change_intensities(images, random_intensities(tuple(images.shape), NO_AUGMENTATION, generator())), images
    )


def test_a_90_degree_rotation_of_a_wide_slice_preserves_lengths() -> None:
    labels = torch.zeros(1, *SIZE, dtype=torch.uint8)
    labels[:, 8:16, 17:23] = 1  # 8 rows, 6 columns, at the centre
    rotated = warp_labels(labels, quarter_turn_grids(), fill=0)[0]
    rows, columns = torch.nonzero(rotated, as_tuple=True)
    assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (6, 8)


@pytest.mark.parametrize(
    "config",
    [
        replace(NO_AUGMENTATION, rotation_deg=90.0),
        replace(NO_AUGMENTATION, translation=0.2),
        replace(NO_AUGMENTATION, scale=0.3),
        replace(NO_AUGMENTATION, flip=0.5),
        replace(NO_AUGMENTATION, rotation_deg=30.0, translation=0.1, scale=0.15, flip=0.5),
        replace(NO_AUGMENTATION, elastic=0.03),
    ],
)
def test_labels_are_warped_like_their_image(config: AugmentConfig) -> None:
    draws = generator()
    grids = sampling_grids(random_affines(2, SIZE, config, draws), random_displacements(2, config, draws), SIZE)
    labels = pattern()
    warped = warp_labels(labels, grids, fill=0)
    images = warp_images(labels[:, None].float(), grids, "linear")[:, 0]
    unblended = (images - images.round()).abs() < 1e-3  # away from borders, where images blend
    assert unblended.float().mean() > 0.6
    agree = (images.round().to(torch.uint8) == warped)[unblended].float().mean()
    assert agree > 0.97
    assert not torch.equal(warped, labels)


def test_warping_fills_labels_and_repeats_the_edge_of_images() -> None:
    shifted = grids_of(torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]))  # half a width to the left
    labels = torch.ones(1, *SIZE, dtype=torch.uint8)
    for fill in (0, IGNORE):
        warped = warp_labels(labels, shifted, fill=fill)
        assert (warped[:, :, : SIZE[1] // 2] == 1).all()
        assert (warped[:, :, SIZE[1] // 2 :] == fill).all()
    ignored = torch.full((1, *SIZE), IGNORE, dtype=torch.uint8)
    assert (warp_labels(ignored, shifted, fill=0)[:, :, : SIZE[1] // 2] == IGNORE).all()
    ramp = torch.arange(SIZE[1]).float().expand(1, 1, *SIZE)
    edge = warp_images(ramp, shifted, "linear")
    assert (edge[..., SIZE[1] // 2 + 1 :] == SIZE[1] - 1).all()
    edge = warp_images(ramp, shifted, "cubic")
    assert ((edge[..., SIZE[1] // 2 + 2 :] - (SIZE[1] - 1)).abs() < 1e-4).all()  # four weights that add up to 1
    probabilities = warp_probabilities(torch.ones(1, 2, *SIZE), shifted)
    assert (probabilities[..., : SIZE[1] // 2 - 1] == 1).all()
    assert (probabilities[..., SIZE[1] // 2 + 1 :] == 0).all()


def test_cubic_interpolation_blurs_less_than_linear() -> None:
    stripes = (torch.arange(SIZE[1]) % 4 < 2).float().expand(1, 1, *SIZE)
    half_a_pixel = grids_of(torch.tensor([[[1.0, 0.0, 1 / SIZE[1]], [0.0, 1.0, 0.0]]]))
    linear, cubic = (warp_images(stripes, half_a_pixel, each).std() for each in ("linear", "cubic"))  # type: ignore[arg-type] # Literals.
    assert linear < cubic < stripes.std()


def test_amplitudes_bound_the_random_changes() -> None:
    config = replace(NO_AUGMENTATION, rotation_deg=25.0, translation=0.1, brightness=0.3, contrast=0.2)
    affines = random_affines(4000, (32, 32), config, generator())
    angles = torch.rad2deg(torch.atan2(affines[:, 1, 0], affines[:, 0, 0]))
    assert 24 < float(angles.abs().max()) <= 25.001
    assert 0.19 < float(affines[:, :, 2].abs().max()) <= 0.2  # coordinates span 2
    changes = random_intensities((4000, 1, 2, 2), config, generator())
    changed = change_intensities(torch.ones(4000, 1, 2, 2), changes)
    assert 0.5 <= float(changed.min()) < 0.55
    assert 1.45 < float(changed.max()) <= 1.5
    per_slice = changed.flatten(start_dim=1)
    torch.testing.assert_close(per_slice.amin(dim=1), per_slice.amax(dim=1))


def test_each_slice_gets_its_own_zoom_within_the_limits() -> None:
    affines = random_affines(4000, (32, 32), replace(NO_AUGMENTATION, scale=0.2), generator())
    zooms = 1 / affines[:, 0, 0]
    assert 0.8 <= float(zooms.min()) < 0.81
    assert 1.19 < float(zooms.max()) <= 1.2001
    torch.testing.assert_close(affines[:, 1, 1], affines[:, 0, 0])


def test_equal_generators_draw_equal_affines() -> None:
    config = AugmentConfig(flip=0.5, scale=0.1)
    one, other = (random_affines(5, SIZE, config, generator()) for _ in range(2))
    assert torch.equal(one, other)


def test_an_elastic_deformation_is_smooth_and_has_the_configured_size() -> None:
    config = replace(NO_AUGMENTATION, elastic=0.02)
    identity = random_affines(400, SIZE, NO_AUGMENTATION, generator())
    moved = sampling_grids(identity, random_displacements(400, config, generator()), SIZE) - grids_of(identity)
    corners = moved[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # control points, whose paths are not smoothed
    assert float(corners.std()) == pytest.approx(2 * 0.02, rel=0.1)  # coordinates span 2
    assert float((moved[:, 1:] - moved[:, :-1]).abs().mean()) < 0.3 * float(moved.abs().mean())


def test_disabled_augmentations_consume_no_random_numbers() -> None:
    draws = generator()
    assert random_displacements(3, NO_AUGMENTATION, draws) is None
    changes = random_intensities((3, 1, *SIZE), NO_AUGMENTATION, draws)
    assert changes.gamma is None
    assert changes.boxes is None
    with_gamma_and_cutout = generator()
    random_intensities((3, 1, *SIZE), replace(NO_AUGMENTATION, gamma=0.3, cutout=0.3), with_gamma_and_cutout)
    assert torch.rand(1, generator=draws) != torch.rand(1, generator=with_gamma_and_cutout)


def test_gamma_bends_intensities_and_keeps_their_minimum_and_maximum() -> None:
    images = torch.linspace(-1, 3, SIZE[0] * SIZE[1]).view(1, 1, *SIZE).repeat(300, 1, 1, 1)
    changes = random_intensities(tuple(images.shape), replace(NO_AUGMENTATION, gamma=0.4), generator())
    assert changes.gamma is not None
    assert 0.6 <= float(changes.gamma.min()) < 0.62
    assert 1.63 < float(changes.gamma.max()) <= 1 / 0.6
    bent = change_intensities(images, changes).flatten(start_dim=1)
    torch.testing.assert_close(bent.amin(dim=1), torch.full((300,), -1.0))
    torch.testing.assert_close(bent.amax(dim=1), torch.full((300,), 3.0))
    assert (bent.diff(dim=1) >= 0).all()
    assert ((bent.mean(dim=1) < 1) == (changes.gamma.flatten() > 1)).all()


def test_gamma_keeps_the_range_of_each_channel_of_each_slice() -> None:
    ramp = torch.linspace(0, 1, SIZE[0] * SIZE[1]).view(SIZE)
    images = torch.tensor([[1.0, 5.0], [20.0, 0.5]])[:, :, None, None] * ramp
    bent = change_intensities(
        images, random_intensities((2, 2, *SIZE), replace(NO_AUGMENTATION, gamma=0.4), generator())
    )
    assert not torch.allclose(bent, images, atol=0.01)
    for extremum in (Tensor.amin, Tensor.amax):
        torch.testing.assert_close(extremum(bent, dim=(2, 3)), extremum(images, dim=(2, 3)))
    torch.testing.assert_close(bent[0, 1], 5 * bent[0, 0])
    torch.testing.assert_close(bent[1, 0], 40 * bent[1, 1])


def test_cutout_zeroes_one_box_in_each_image() -> None:
    images = torch.ones(500, 2, *SIZE)
    changed = change_intensities(
        images, random_intensities(tuple(images.shape), replace(NO_AUGMENTATION, cutout=0.5), generator())
    )
    assert torch.equal(changed[:, 0], changed[:, 1])
    gone = changed[:, 0] == 0
    assert gone.any(dim=0).all()  # at any position
    assert set(changed.unique().tolist()) == {0.0, 1.0}
    heights, widths = gone.any(dim=2).sum(dim=1), gone.any(dim=1).sum(dim=1)
    assert torch.equal(heights * widths, gone.sum(dim=(1, 2)))  # boxes without holes
    assert SIZE[0] // 2 - 2 <= int(heights.max()) <= SIZE[0] // 2 + 1
    assert SIZE[1] // 2 - 2 <= int(widths.max()) <= SIZE[1] // 2 + 1
