"""Pictures: one case with its prediction, and a contact sheet of scribbles."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maag.labels import BACKGROUND, IGNORE, colour_of

if TYPE_CHECKING:
    from maag.config.data import DataConfig
    from maag.data.cases import Case

Labels = np.ndarray[Any, np.dtype[np.uint8]]

_SHOWN_SLICES = 3
_SHEET_COLUMNS = 6


def draw_result(out: Path, case: Case, predictions: Path, data: DataConfig) -> None:
    """Draw some slices of `case` with its scribble, its prediction from the folder `predictions`, and its mask.

    Raises:
        DataError: a file is unreadable.
        StorageError: `out` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from maag.data.cache.case_arrays import read_case
    from maag.data.catalog import reader_of
    from maag.data.files.volume import load_labels
    from maag.storage import replacing

    arrays = read_case(case, reader_of(data.dataset), data)
    predicted, _ = load_labels(predictions / case.images[0].name, range(data.num_classes))
    columns = [
        ("image", None),
        ("scribble", next(iter(arrays.scribbles.values()), None)),
        ("prediction", np.where(predicted == BACKGROUND, np.uint8(IGNORE), predicted)),
        ("mask", None if arrays.mask is None else np.where(arrays.mask == BACKGROUND, np.uint8(IGNORE), arrays.mask)),
    ]
    depth = arrays.volume.shape[0]
    slices = np.linspace(0.2 * depth, 0.8 * depth, _SHOWN_SLICES).astype(int)
    figure = Figure(figsize=(2.4 * len(columns), 2.6 * len(slices)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(slices), len(columns), squeeze=False)
    for row, place in zip(axes, slices, strict=True):
        for axis, (name, labels) in zip(row, columns, strict=True):
            axis.imshow(arrays.volume.voxels[0, place], cmap="gray")
            if labels is not None:
                axis.imshow(_coloured(labels[place], data.num_classes))
            axis.set_title(name, fontsize=9)
            axis.set_axis_off()
    handles: list[Any] = [Patch(color=_colour(value), label=name) for value, name in enumerate(data.classes)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    with replacing(out) as temporary:
        canvas.print_figure(temporary, format="png", dpi=110)


def draw_contact_sheet(out: Path, pairs: Sequence[tuple[str, Labels, Labels]], num_classes: int) -> None:
    """Draw one slice per tile: the mask pale, its scribble opaque.

    Args:
        out: a PNG.
        pairs: title, mask (Y, X) and scribble (Y, X), IGNORE where unannotated.
        num_classes: background included.

    Raises StorageError.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from maag.storage import replacing

    columns = min(_SHEET_COLUMNS, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, mask, scribble) in zip(axes, pairs, strict=False):
        shown = np.where(mask == BACKGROUND, np.uint8(IGNORE), mask)
        axis.imshow(np.ones((*mask.shape, 3)))
        axis.imshow(_coloured(shown, num_classes, opacity=0.25), interpolation="nearest")
        axis.imshow(_coloured(scribble, num_classes, opacity=1.0), interpolation="nearest")
        # File names may hold any byte, and two dollar signs are not a formula.
        axis.set_title(os.fsencode(title).decode(errors="replace"), fontsize=7, parse_math=False)
    with replacing(out) as temporary:
        canvas.print_figure(temporary, format="png", dpi=110)


def _coloured(labels: Labels, num_classes: int, opacity: float = 0.6) -> np.ndarray[Any, Any]:
    """(Y, X) labels to (Y, X, 4) colours in [0, 1], transparent at IGNORE."""
    palette = np.zeros((IGNORE + 1, 4))
    for value in range(num_classes):
        palette[value] = (*_colour(value), opacity)
    coloured: np.ndarray[Any, Any] = palette[labels]
    return coloured


def _colour(value: int) -> tuple[float, float, float]:
    red, green, blue = colour_of(value)
    return red / 255, green / 255, blue / 255
