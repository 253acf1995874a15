"""Scribbles from masks, as an expert would draw them: a stroke inside each structure, two around them all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from skimage.morphology import skeletonize

from maag.labels import BACKGROUND

_STROKE_PART = (0.4, 0.7)  # of a skeleton's pixels that the hand follows
_NEAR_PX, _FAR_PX = (6, 11), (22, 40)  # distances of the two background strokes from the structures


def draw_scribble(
    mask: NDArray[np.uint8], num_classes: int, unlabelled_value: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Scribble one slice.

    Args:
        mask: (Y, X) uint8 labels in [0, num_classes).
        num_classes: background included.
        unlabelled_value: what pixels without a stroke get.
        random: decides which part of each structure the stroke follows.

    Returns:
        (Y, X) uint8; every labelled pixel has the mask's label there. A slice without structures has
        background strokes around its middle.
    """
    scribble = np.full(mask.shape, unlabelled_value, dtype=np.uint8)
    for value in range(1, num_classes):
        structure = mask == value
        scribble[_stroke(_path_inside(structure), random)] = value
    scribble[_background_stroke(mask, random)] = BACKGROUND
    return scribble


def _path_inside(structure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The skeleton of a long structure; in a round one, whose skeleton is a dot, a loop half-way to its middle."""
    skeleton: NDArray[np.bool_] = skeletonize(structure)
    if skeleton.sum() >= np.sqrt(structure.sum()):
        return skeleton
    depth = distance_transform_edt(structure)
    core = depth > depth.max() / 2
    loop: NDArray[np.bool_] = core & ~binary_erosion(core)
    return loop


def _stroke(skeleton: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.bool_]:
    """A connected-looking part of a skeleton: its pixels within some angle about its centre."""
    rows, columns = np.nonzero(skeleton)
    stroke = np.zeros_like(skeleton)
    if len(rows) == 0:
        return stroke
    angles = np.arctan2(rows - rows.mean(), columns - columns.mean())
    turned = (angles - random.uniform(-np.pi, np.pi)) % (2 * np.pi)
    kept = np.argsort(turned)[: max(2, round(random.uniform(*_STROKE_PART) * len(rows)))]
    stroke[rows[kept], columns[kept]] = True
    return stroke


def _background_stroke(mask: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.bool_]:
    structures = mask != BACKGROUND
    if not structures.any():
        structures = np.zeros_like(structures)
        structures[mask.shape[0] // 2, mask.shape[1] // 2] = True
    away = distance_transform_edt(~structures)
    stroke: NDArray[np.bool_] = np.zeros_like(structures)
    for distances in (_NEAR_PX, _FAR_PX):
        distance = int(random.integers(*distances))
        stroke |= _stroke((away >= distance) & (away < distance + 1), random)
    return stroke
