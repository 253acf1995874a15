"""Plots for the HTML report, as SVG elements and data URLs."""

from __future__ import annotations

import base64
import io
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maag.evaluate.agreement import Agreement, Pair
from maag.evaluate.report import Report
from maag.evaluate.worst import ShownSlice
from maag.labels import BACKGROUND, IGNORE, colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SCORES = {"dice": "Dice", "hd95_mm": "HD95 in mm"}
_COLUMNS = 4
_FEWEST_POINTS = 3
_SPREAD = 0.28
"""Half the width over which the points of a class are spread; classes are 1 apart."""
_PIXELS_PER_INCH = 110


def scores_svg(report: Report) -> str:
    """An <svg> element with Dice and HD95 of each case by class, and the median as a line."""
    figure = _figure(1.5 + 1.6 * len(report.classes) * len(_SCORES), 3.2)
    for axis, (score, title) in zip(figure.subplots(1, len(_SCORES), squeeze=False)[0], _SCORES.items(), strict=True):
        for place, name in enumerate(report.classes):
            values = [value for case in report.cases if (value := getattr(case.scores[name], score)) is not None]
            if values:
                across = place + _SPREAD * np.linspace(-1, 1, len(values)) if len(values) > 1 else [place]
                axis.plot(across, values, "o", color=_colour(place + 1), markersize=3.5, alpha=0.7)
                median = float(np.median(values))
                axis.plot([place - _SPREAD, place + _SPREAD], [median, median], color="black", linewidth=1.2)
        axis.set_xticks(range(len(report.classes)))
        axis.set_xticklabels([_shown(name) for name in report.classes], parse_math=False)
        axis.set_xlim(-0.6, len(report.classes) - 0.4)
        _name(axis, title)
    return _svg(figure)


def agreement_svg(pairs: Mapping[str, Sequence[Pair]]) -> str | None:
    """An <svg> element with a Bland-Altman plot for each quantity with enough pairs; None if none has."""
    drawn = {name: found for name, found in pairs.items() if len(found) >= _FEWEST_POINTS}
    if not drawn:
        return None
    rows = math.ceil(len(drawn) / _COLUMNS)
    figure = _figure(3.1 * min(_COLUMNS, len(drawn)), 2.6 * rows)
    axes = figure.subplots(rows, min(_COLUMNS, len(drawn)), squeeze=False).ravel()
    for axis in axes[len(drawn) :]:
        axis.set_axis_off()
    for axis, (name, found) in zip(axes, drawn.items(), strict=False):
        means = [(pair.reference + pair.predicted) / 2 for pair in found]
        axis.plot(means, [pair.predicted - pair.reference for pair in found], "o", markersize=3.5, alpha=0.7)
        agreement = Agreement.of(found)
        axis.axhline(agreement.bias, color="black", linewidth=1.2)
        for limit in (agreement.lower, agreement.upper):
            axis.axhline(limit, color="black", linewidth=0.8, linestyle="--")
        _name(axis, name)
        axis.set_xlabel("mean of both", fontsize=8)
        axis.set_ylabel("predicted - mask", fontsize=8)
    return _svg(figure)


def slice_png(shown: ShownSlice) -> str:
    """A `data:` URL of a PNG: the image with the outlines of its mask (solid) and prediction (dashed)."""
    figure = _figure(3.2, 3.2)
    axis = figure.subplots()
    low, high = np.percentile(shown.image, (1, 99))
    axis.imshow(shown.image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=_aspect(shown))
    for labels, style in ((shown.reference, "solid"), (shown.prediction, "dashed")):
        for value in np.unique(labels):
            if value not in (BACKGROUND, IGNORE):
                inside = np.pad(labels == value, 1).astype(float)
                places = [np.arange(-1, size + 1) for size in reversed(labels.shape)]
                axis.contour(*places, inside, [0.5], colors=[_colour(int(value))], linestyles=style, linewidths=1.4)
    axis.set_xlim(-0.5, shown.image.shape[1] - 0.5)
    axis.set_ylim(shown.image.shape[0] - 0.5, -0.5)
    axis.set_axis_off()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_PIXELS_PER_INCH)
    return f"data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode('ascii')}"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    from matplotlib import rc_context

    drawn = io.StringIO()
    # Fixed ids, so that equal data give equal SVG.
    with rc_context({"svg.hashsalt": "maag", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's fonts show the text
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def _name(axis: Axes, title: str) -> None:
    axis.set_title(_shown(title), fontsize=10, parse_math=False)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)


def _shown(name: str) -> str:
    """Names may contain any byte, as file names do."""
    return os.fsencode(name).decode(errors="replace")


def _aspect(shown: ShownSlice) -> float:
    rows_mm, columns_mm = shown.pixel_mm
    return rows_mm / columns_mm


def _colour(value: int) -> tuple[Any, ...]:
    return tuple(part / 255 for part in colour_of(value))
