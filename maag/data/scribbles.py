"""Scribbles from masks: a style drawn slice by slice, each from a seed of its own, and how much of a mask it covers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from skimage.graph import MCP_Geometric

from maag.data.scribble_styles import STYLES
from maag.errors import ConfigError, DataError
from maag.labels import IGNORE

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def simulate(
    mask: NDArray[np.uint8], num_classes: int, style: str, ratio: float = 1.0, *, seed: int, case_id: str
) -> NDArray[np.uint8]:
    """Scribble a mask.

    Args:
        mask: (Z, Y, X) or (Y, X) uint8 labels in [0, num_classes).
        num_classes: background included.
        style: a name in STYLES.
        ratio: in (0, 1]; the part of every stroke's length that is kept.
        seed: not negative.
        case_id: with `seed` and the slice's number it decides all that is random, so that a case's scribble does not
            depend on which others are made, nor a slice's on the other slices.

    Returns:
        uint8 of the mask's shape: the mask's label on strokes, IGNORE elsewhere. A class has a stroke in every slice
        in which it has pixels.

    Raises:
        ConfigError: unknown style, or a ratio out of its limits.
        DataError: the mask is not of two or three dimensions, or has a label that is no class.
    """
    if style not in STYLES:
        raise ConfigError(f"scribble style {style!r} is unknown; known are {', '.join(STYLES)}")
    if not 0 < ratio <= 1:
        raise ConfigError(f"ratio {ratio:g} of a stroke's length cannot be kept; it must be above 0 and at most 1")
    if mask.ndim not in (2, 3) or mask.size == 0:
        raise DataError(f"{case_id}: a mask of shape {mask.shape}; it must be (Z, Y, X) or (Y, X) and not empty")
    if int(mask.max()) >= num_classes:
        raise DataError(
            f"{case_id}: label {mask.max()} in the mask of {num_classes} classes; labels must be 0 to {num_classes - 1}: "
            "correct the mask or the number of classes"
        )
    planes = mask.reshape(-1, *mask.shape[-2:])
    strokes = np.empty_like(planes)
    for place, plane in enumerate(planes):
        random = np.random.default_rng([seed, place, *case_id.encode()])
        strokes[place] = _shorten(STYLES[style](plane, num_classes, random), ratio, random)
    return strokes.reshape(mask.shape)


def coverage(strokes: NDArray[np.uint8], mask: NDArray[np.uint8], num_classes: int) -> NDArray[np.float64]:
    """How much of each class is scribbled.

    Args:
        strokes: uint8 labels of any shape, IGNORE where nothing is drawn.
        mask: uint8 labels of the same shape, in [0, num_classes).
        num_classes: background included.

    Returns:
        (num_classes,) scribbled pixels in percent of the class's pixels in the mask; NaN for a class without any.
    """
    drawn = np.bincount(strokes.ravel(), minlength=IGNORE + 1)[:num_classes]
    area = np.bincount(mask.ravel(), minlength=IGNORE + 1)[:num_classes]
    return np.where(area > 0, 100 * drawn / np.maximum(area, 1), np.nan)


def _shorten(strokes: NDArray[np.uint8], ratio: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """Cut every connected stroke to `ratio` of its length."""
    if ratio == 1:
        return strokes
    short = np.full_like(strokes, IGNORE)
    for value in np.unique(strokes[strokes != IGNORE]):
        pieces, _ = label(strokes == value, structure=_EIGHT_NEIGHBOURS)
        for number, box in enumerate(find_objects(pieces), start=1):
            short[box][_beginning(pieces[box] == number, ratio, random)] = value
    return short


def _beginning(stroke: NDArray[np.bool_], ratio: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels of a connected stroke nearest to one of its ends, along the stroke: connected again."""
    somewhere = random.choice(np.argwhere(stroke))
    end = np.argwhere(stroke)[np.argmax(_way_from(somewhere, stroke)[stroke])]
    way = _way_from(end, stroke)[stroke]
    kept = np.argsort(way, kind="stable")[: max(1, round(ratio * len(way)))]
    beginning = np.zeros_like(stroke)
    beginning[tuple(np.argwhere(stroke)[kept].T)] = True
    return beginning


def _way_from(pixel: NDArray[np.int64], stroke: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(Y, X) length of the shortest way from `pixel` that stays on the stroke."""
    way: NDArray[np.float64] = MCP_Geometric(np.where(stroke, 1.0, np.inf)).find_costs([tuple(pixel)])[0]
    return way
