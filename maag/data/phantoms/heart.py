"""Anatomy and intensities of a synthetic short-axis heart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

RV, MYO, LV = 1, 2, 3
_SPACINGS_MM = (1.37, 1.4, 1.52, 1.56, 1.68, 1.79)
_DEPTH_MM = (5.0, 10.0)


class Heart(NamedTuple):
    """One patient's anatomy at end-diastole, in mm."""

    spacing_mm: float
    slice_mm: float
    shape: tuple[int, int, int]
    centre: NDArray[np.float64]
    """(row, column) of the left ventricle."""
    cavity: float
    wall: float
    oval: float
    tilt: float
    rv_angle: float
    rv_reach: float


def draw_heart(random: np.random.Generator) -> Heart:
    """A random patient."""
    shape = (int(random.integers(6, 11)), int(random.integers(100, 150)), int(random.integers(100, 150)))
    spacing = float(random.choice(_SPACINGS_MM))
    middle = np.array(shape[1:]) * spacing / 2
    return Heart(
        spacing_mm=spacing,
        slice_mm=float(random.choice(_DEPTH_MM)),
        shape=shape,
        centre=middle + random.uniform(-14, 14, size=2),
        cavity=float(random.uniform(19, 27)),
        wall=float(random.uniform(8, 12)),
        oval=float(random.uniform(0.88, 1.0)),
        tilt=float(random.uniform(0, np.pi)),
        rv_angle=float(random.uniform(np.pi * 0.85, np.pi * 1.2)),
        rv_reach=float(random.uniform(1.0, 1.25)),
    )


def draw_mask(heart: Heart, contraction: float) -> NDArray[np.uint8]:
    """(Z, Y, X) labels: a ring that narrows from base to apex, and a crescent beside it that ends before the apex."""
    depth = heart.shape[0]
    planes = []
    for place in range(depth):
        toward_apex = place / (depth - 1)
        taper = np.sqrt(max(0.0, 1 - (0.95 * toward_apex) ** 2))
        cavity = heart.cavity * taper * (1 - contraction)
        wall = heart.wall * (0.75 + 0.25 * taper) * (1 + 0.9 * contraction)
        radius = _radius_about(heart, heart.centre)
        plane = np.zeros(heart.shape[1:], dtype=np.uint8)
        reach = heart.rv_reach * taper * (1 - 0.6 * toward_apex) * (1 - 0.4 * contraction)
        if reach > 0.25:
            outer = cavity + wall
            toward_rv = np.array([np.sin(heart.rv_angle), np.cos(heart.rv_angle)])
            rv_centre = heart.centre + toward_rv * outer * 0.95
            plane[_radius_about(heart, rv_centre) < outer * reach] = RV
        plane[radius < cavity + wall] = MYO
        plane[radius < cavity] = LV
        planes.append(plane)
    return np.stack(planes)


def _radius_about(heart: Heart, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Y, X) elliptic distance in mm from `centre`."""
    rows, columns = np.indices(heart.shape[1:]) * heart.spacing_mm
    down, right = rows - centre[0], columns - centre[1]
    along = down * np.cos(heart.tilt) + right * np.sin(heart.tilt)
    across = right * np.cos(heart.tilt) - down * np.sin(heart.tilt)
    distance: NDArray[np.float64] = np.hypot(along, across / heart.oval)
    return distance


def draw_tissue(heart: Heart, random: np.random.Generator) -> NDArray[np.float64]:
    """(Z, Y, X) intensities around the heart: chest, lungs, liver, vessels as bright as blood."""
    _, height, width = heart.shape
    rows, columns = np.indices((height, width))
    body = np.hypot((rows - height / 2) / (0.48 * height), (columns - width / 2) / (0.49 * width)) < 1
    texture = np.where(body, 52 + gaussian_filter(random.normal(0, 80, (height, width)), 4), 8.0)
    for side in (0.2, 0.8):
        lung = np.hypot((rows - 0.42 * height) / (0.28 * height), (columns - side * width) / (0.15 * width)) < 1
        texture[lung] = 18
    liver = np.hypot((rows - 0.9 * height) / (0.2 * height), (columns - 0.3 * width) / (0.3 * width)) < 1
    texture[liver & body] = 62
    for _ in range(int(random.integers(2, 5))):
        at = random.uniform(0.1, 0.9, size=2) * (height, width)
        texture[np.hypot(rows - at[0], columns - at[1]) < random.uniform(2, 4)] = random.uniform(110, 150)
    return np.repeat(texture[None], heart.shape[0], axis=0)


def draw_image(mask: NDArray[np.uint8], texture: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int16]:
    """(Z, Y, X) intensities: bright blood, dark muscle, both within the range of the surroundings."""
    blood = random.uniform(150, 200)
    levels = {RV: 0.92 * blood, MYO: random.uniform(78, 96), LV: blood}
    image = texture.copy()
    for value, level in levels.items():
        inside = mask == value
        image[inside] = level + gaussian_filter(random.normal(0, 40, mask.shape), (0, 2, 2))[inside]
    image = gaussian_filter(image, (0.3, 0.8, 0.8))
    rows, columns = np.indices(mask.shape[1:]) / np.array(mask.shape[1:]).reshape(2, 1, 1) - 0.5
    bias = 1 + random.uniform(-0.4, 0.4) * rows + random.uniform(-0.4, 0.4) * columns
    noise = random.normal(0, 10, mask.shape)
    drawn: NDArray[np.int16] = np.clip(image * bias + noise, 0, None).astype(np.int16)
    return drawn
