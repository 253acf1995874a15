"""Scribbles simulated from masks in several styles: skeleton, random walk, curve, and an expert's few strokes.

A style is a function of one slice's mask and a random generator; strokes are clipped to the structure they label.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_dilation, binary_erosion, distance_transform_edt, label
from skimage.morphology import skeletonize

from maag.labels import BACKGROUND, IGNORE

Stroke = NDArray[np.bool_]
Drawing = Callable[[NDArray[np.uint8], int, np.random.Generator], Mapping[int, Stroke]]
"""From a slice (Y, X), the number of classes and a generator: by class, its strokes (Y, X)."""

_BOX = np.ones((3, 3), dtype=bool)
_WALK_PART = 0.10  # steps of a random walk, as a fraction of the structure's pixels, in at most so many tries
_WALK_TRIES = 4000
_EXPERT_PART = (0.4, 0.7)  # fraction of a skeleton's pixels that is drawn
_NEAR_PX, _FAR_PX = (6, 11), (22, 40)  # distance of the expert's two background strokes to the structures
_BORDER_PART = 0.25  # fraction of a structure's border that is traced
_SMALLEST_PART_PX = 16  # smallest enclosed background with a stroke of its own


def simulate(
    mask: NDArray[np.uint8], num_classes: int, style: str, *, ratio: float = 1.0, seed: int = 0, case_id: str = ""
) -> NDArray[np.uint8]:
    """Simulate the scribble of a volume.

    Args:
        mask: (Z, Y, X) uint8 labels in [0, num_classes).
        num_classes: background included.
        style: a name in STYLES.
        ratio: fraction in (0, 1] of each stroke's length that is kept, in one piece.
        seed: strokes depend on seed, case and slice index alone.
        case_id: name of the volume.

    Returns:
        (Z, Y, X) uint8: the mask's label on strokes, IGNORE elsewhere.
    """
    name = int.from_bytes(hashlib.blake2b(os.fsencode(case_id), digest_size=8).digest())
    return np.stack(
        [
            draw_scribble(plane, num_classes, style, np.random.default_rng([seed, name, place]), ratio=ratio)
            for place, plane in enumerate(mask)
        ]
    )


def draw_scribble(
    mask: NDArray[np.uint8], num_classes: int, style: str, random: np.random.Generator, *, ratio: float = 1.0
) -> NDArray[np.uint8]:
    """Simulate the scribble of one slice (Y, X); see `simulate`."""
    scribble = np.full(mask.shape, IGNORE, dtype=np.uint8)
    for value, stroke in STYLES[style](mask, num_classes, random).items():
        inside = stroke & (mask == value)
        scribble[_shortened(inside, ratio, random) if ratio < 1 else inside] = value
    return scribble


def coverage(scribble: NDArray[np.uint8], mask: NDArray[np.uint8], num_classes: int) -> NDArray[np.float64]:
    """Scribbled part of each class's area in %: (num_classes,), NaN for a class that is not in the mask."""
    areas = np.bincount(mask.ravel(), minlength=num_classes)[:num_classes]
    drawn = np.bincount(scribble.ravel(), minlength=IGNORE + 1)[:num_classes]
    covered: NDArray[np.float64] = 100 * np.divide(drawn, areas, out=np.full(num_classes, np.nan), where=areas > 0)
    return covered


def _skeletons(mask: NDArray[np.uint8], num_classes: int, random: np.random.Generator) -> Mapping[int, Stroke]:
    return {value: skeletonize(mask == value) for value in range(num_classes)}


def _dilated_skeletons(mask: NDArray[np.uint8], num_classes: int, random: np.random.Generator) -> Mapping[int, Stroke]:
    """As in the paper's release: closed and dilated, which covers half of a thin ring."""
    return {value: binary_dilation(binary_closing(skeletonize(mask == value))) for value in range(num_classes)}


def _random_walks(mask: NDArray[np.uint8], num_classes: int, random: np.random.Generator) -> Mapping[int, Stroke]:
    """As in the paper's release: a walk inside each structure, closed, thinned and dilated.

    Each enclosed part of the background gets one too, as a walk from elsewhere never enters it.
    """
    walks = {value: _walk(mask == value, random) for value in range(num_classes)}
    for part in _enclosed(mask):
        walks[BACKGROUND] |= _walk(part, random)
    return {value: binary_dilation(skeletonize(binary_closing(binary_dilation(walk)))) for value, walk in walks.items()}


def _walk(structure: Stroke, random: np.random.Generator) -> Stroke:
    """A random walk; a step is taken only if both coordinates differ from those before the previous step."""
    walked = np.zeros_like(structure)
    rows, columns = np.nonzero(structure)
    if len(rows) == 0:
        return walked
    start = int(random.integers(len(rows)))
    row, column = before_row, before_column = int(rows[start]), int(columns[start])
    walked[row, column] = True
    length, longest, (height, width) = 1, _WALK_PART * len(rows), structure.shape
    # One value at a time, Python's bytes and integers are several times as fast as numpy's arrays.
    inside = structure.tobytes()
    downs, rights = random.integers(-1, 2, size=(_WALK_TRIES, 2)).T.tolist()
    for down, right in zip(downs, rights, strict=True):
        if length >= longest:
            break
        next_row = min(max(row + down, 0), height - 1)
        next_column = min(max(column + right, 0), width - 1)
        if next_row != before_row and next_column != before_column and inside[next_row * width + next_column]:
            before_row, before_column = row, column
            row, column = next_row, next_column
            walked[row, column] = True
            length += 1
    return walked


def _curves(mask: NDArray[np.uint8], num_classes: int, random: np.random.Generator) -> Mapping[int, Stroke]:
    """A curve through each structure's middle and along a part of its inner border; arcs for the background."""
    strokes: dict[int, Stroke] = {BACKGROUND: _background_strokes(mask, random)}
    for value in range(1, num_classes):
        structure = mask == value
        border = structure & ~binary_erosion(structure, _BOX, border_value=1)
        strokes[value] = _path_inside(structure) | _arc(border, _BORDER_PART, random)
    return strokes


def _expert_strokes(mask: NDArray[np.uint8], num_classes: int, random: np.random.Generator) -> Mapping[int, Stroke]:
    """A stroke along a part of each structure, and two background strokes, near and far."""
    strokes = {
        value: _arc(_path_inside(mask == value), random.uniform(*_EXPERT_PART), random)
        for value in range(1, num_classes)
    }
    return {**strokes, BACKGROUND: _background_strokes(mask, random)}


STYLES: Final[Mapping[str, Drawing]] = {
    "skeleton": _skeletons,
    "skeleton-dilated": _dilated_skeletons,
    "random-walk": _random_walks,
    "curve": _curves,
    "expert": _expert_strokes,
}
"""All styles by name."""


def _path_inside(structure: Stroke) -> Stroke:
    """The skeleton of a long structure; for a round one, whose skeleton is a dot, a loop half-way to its middle."""
    skeleton: Stroke = skeletonize(structure)
    if skeleton.sum() >= np.sqrt(structure.sum()):
        return skeleton
    depth = distance_transform_edt(structure)
    core = depth > depth.max() / 2
    loop: Stroke = core & ~binary_erosion(core)
    return loop


def _arc(path: Stroke, part: float, random: np.random.Generator) -> Stroke:
    """A fraction `part` of a path's pixels: those within a random sector about its centre."""
    rows, columns = np.nonzero(path)
    stroke = np.zeros_like(path)
    if len(rows) == 0:
        return stroke
    angles = np.arctan2(rows - rows.mean(), columns - columns.mean())
    rotated = (angles - random.uniform(-np.pi, np.pi)) % (2 * np.pi)
    kept = np.argsort(rotated)[: max(2, round(part * len(rows)))]
    stroke[rows[kept], columns[kept]] = True
    return stroke


def _background_strokes(mask: NDArray[np.uint8], random: np.random.Generator) -> Stroke:
    structures = mask != BACKGROUND
    if not structures.any():
        structures = np.zeros_like(structures)
        structures[mask.shape[0] // 2, mask.shape[1] // 2] = True
    away = distance_transform_edt(~structures)
    stroke: Stroke = np.zeros_like(structures)
    for distances in (_NEAR_PX, _FAR_PX):
        distance = min(int(random.integers(*distances)), int(away.max()) - 1)
        stroke |= _arc((away >= distance) & (away < distance + 1), random.uniform(*_EXPERT_PART), random)
    for part in _enclosed(mask):
        stroke |= _arc(_path_inside(part), random.uniform(*_EXPERT_PART), random)
    return stroke


def _enclosed(mask: NDArray[np.uint8]) -> list[Stroke]:
    """Parts of the background that structures cut off from the largest part, such as a cavity inside a wall.

    An annotator marks these as well: without a stroke nothing shows that a bright cavity is not wall.
    """
    parts, count = label(mask == BACKGROUND)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    largest = int(sizes.argmax()) + 1 if count else 0
    found: list[Stroke] = [
        parts == part for part in range(1, count + 1) if part != largest and sizes[part - 1] >= _SMALLEST_PART_PX
    ]
    return found


def _shortened(stroke: Stroke, ratio: float, random: np.random.Generator) -> Stroke:
    """Keep a fraction `ratio` of each connected stroke, starting at one of its ends."""
    pieces, count = label(stroke, _BOX)
    kept = np.zeros_like(stroke)
    for piece in range(1, count + 1):
        rows, columns = np.nonzero(pieces == piece)
        order = _along(rows, columns, random)[: max(1, round(ratio * len(rows)))]
        kept[rows[order], columns[order]] = True
    return kept


def _along(rows: NDArray[np.int64], columns: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Indices of a stroke's pixels in breadth-first order from one of its ends."""
    index_of = {(int(row), int(column)): place for place, (row, column) in enumerate(zip(rows, columns, strict=True))}

    def reached_from(start: int) -> list[int]:
        order, seen = [start], {start}
        for place in order:
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    near = index_of.get((int(rows[place]) + down, int(columns[place]) + right))
                    if near is not None and near not in seen:
                        seen.add(near)
                        order.append(near)
        return order

    end = reached_from(int(random.integers(len(rows))))[-1]
    return np.array(reached_from(end))
