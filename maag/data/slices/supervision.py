"""What supervises which slices under a split: scribbles, masks, shapes, or nothing. Checked before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maag.config.schema import Config
from maag.data.cache.prepared import PreparedData
from maag.data.geometry import Grid, inside
from maag.data.scribbles.raters import (
    RaterAgreement,
    combine,
    measure_agreement,
    rater_weights,
    require_plausible_raters,
)
from maag.data.splits import Split
from maag.errors import SplitError
from maag.labels import IGNORE

SOFT_LABEL_SCALE = 255
"""Stored value of probability 1 in soft labels."""
_SLICES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Supervision:
    """Arrays over all slices of the data set, and the role of each slice."""

    images: NDArray[np.float32]
    """(S, C, H, W)."""
    scribbles: NDArray[np.uint8]
    """(S, H, W), combined over raters; IGNORE where unlabelled."""
    scribble_weights: NDArray[np.uint8] | None
    """(S, H, W) weights times FULL_WEIGHT; None where all are 1."""
    masks: NDArray[np.uint8]
    """(S, H, W)."""
    shapes: NDArray[np.uint8]
    """(T, H, W) masks for the discriminator, of this data set or another."""
    scribbled: NDArray[np.int64]
    """Slices that scribbles supervise."""
    dense: NDArray[np.int64]
    """Slices that masks supervise."""
    unlabelled: NDArray[np.int64]
    """Slices for the losses that need no labels: the adversarial term and a teacher's."""
    real: NDArray[np.int64]
    """Slices of `shapes` that the discriminator sees."""
    agreement: tuple[RaterAgreement, ...]
    """One entry for each rater where there are several."""
    soft_labels: NDArray[np.uint8] | None = None
    """(S, num_classes, H, W) finished teachers' probabilities times SOFT_LABEL_SCALE; None without such teachers."""


def supervise(prepared: PreparedData, split: Split, config: Config, shapes: PreparedData | None = None) -> Supervision:
    """The supervision of a `prepared` set under a `split`.

    Args:
        prepared: the data set.
        split: its patients by part.
        config: supervision and losses.
        shapes: another prepared set whose masks the discriminator sees instead, those of all its patients; see
            `maag.data.slices.shapes.require_other_patients`.

    Raises:
        SplitError: a kind of supervision that is needed is missing, or a class is never supervised.
        DataError: a rater contradicts the others, or raters' weights cannot be estimated.
        ConfigError: `data.rater_weights` has not one weight for each rater, or only 0.
    """
    scribbled = prepared.slices_of(split.scribbled, scribbled=True)
    dense = prepared.slices_of(split.dense, masked=True)
    by_masks = bool(split.dense) or config.data.supervision == "dense"
    if split.scribbled or not by_masks:
        _require(
            scribbled, "none of the training patients has scribbles", "draw some, or --scribbles simulated:random-walk"
        )
    if by_masks:
        _require(dense, "none of the patients that train with masks has any", "add them, or change data.supervision")
    real_set = shapes or prepared
    real = real_set.slices_of(real_set.patient_ids if shapes else split.shapes, masked=True)
    if config.needs_shapes:
        _require(
            real,
            "none of the discriminator's patients has masks",
            "add unpaired masks, give another folder of them with --shapes, or set the adversarial weights and "
            "loss.areas to 0",
        )
    labels, weights, agreement = _combined(prepared, split, config)
    _require_all_classes(_values(labels, scribbled) | _values(prepared.masks, dense), config)
    return Supervision(
        images=prepared.images,
        scribbles=labels,
        scribble_weights=weights,
        masks=prepared.masks,
        shapes=real_set.masks,
        scribbled=scribbled,
        dense=dense,
        unlabelled=prepared.slices_of(split.unlabelled),
        real=real,
        agreement=agreement,
    )


def ineffective_settings(config: Config, split: Split, raters: Sequence[str]) -> list[str]:
    """A sentence for each setting that has no effect with this split and these `raters`."""
    data, notes = config.data, []
    labelled_cine = split.relabelled and data.cine
    if data.supervision == "semi" and not split.unlabelled and not labelled_cine:
        notes.append(
            "data.supervision=semi has no effect: no patient is unlabelled; lower data.scribbled_fraction, now "
            f"{data.scribbled_fraction:g}, to use the scribbles of only some patients"
        )
    if data.rater_weights and (data.raters != "weighted" or len(raters) < 2):
        why = (
            f"data.raters={data.raters}, and only weighted uses them" if len(raters) > 1 else "there is only one rater"
        )
        notes.append(f"data.rater_weights={list(data.rater_weights)} has no effect: {why}")
    return notes


def _combined(
    prepared: PreparedData, split: Split, config: Config
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, tuple[RaterAgreement, ...]]:
    if len(prepared.raters) == 1:
        return prepared.scribbles[:, 0], None, ()
    num_classes, method = config.data.num_classes, config.data.raters
    agreement = measure_agreement(_without_padding(prepared, split, config), prepared.raters, num_classes)
    require_plausible_raters(agreement, num_classes)
    weights = rater_weights(agreement, config.data.rater_weights) if method == "weighted" else ()
    return *combine(prepared.scribbles, num_classes, method, weights), agreement


def _without_padding(prepared: PreparedData, split: Split, config: Config) -> Iterator[NDArray[np.uint8]]:
    """Scribbles of the training cases, with padding, on which all raters would agree, as IGNORE."""
    for case in prepared.cases:
        if case.patient_id in split.scribbled and case.raters:
            _, height, width = case.source_shape
            grid = Grid.plan((height, width), case.spacing_mm[1:], config.data.spacing_mm, config.data.size_px)
            scribbles = prepared.scribbles[case.start : case.stop]
            yield np.where(inside(grid), scribbles, np.uint8(IGNORE))


def _require(indices: NDArray[np.int64], what: str, way_out: str) -> None:
    if len(indices) == 0:
        raise SplitError(f"{what}; {way_out}")


def _values(labels: NDArray[np.uint8], slices: NDArray[np.int64]) -> set[int]:
    """All labels that occur in some slices, which may not fit into memory together."""
    parts = (slices[start : start + _SLICES_AT_ONCE] for start in range(0, len(slices), _SLICES_AT_ONCE))
    return {int(value) for part in parts for value in np.unique(labels[part])}


def _require_all_classes(supervised: set[int], config: Config) -> None:
    missing = [name for value, name in enumerate(config.data.classes) if value not in supervised]
    if missing:
        raise SplitError(
            f"no training patient has a stroke of class {', '.join(missing)}, so it could not be learned; draw some, "
            "use more patients, or leave the class out of data.classes"
        )
