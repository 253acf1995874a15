"""One case, read and checked, for the cache and for `maag data check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cases import Case, Reader, ScribbleFile, SimulatedScribble
from maag.data.catalog import OWN_LAYOUTS
from maag.data.files.header_agreement import header_differences
from maag.data.files.label_files import load_label_file
from maag.data.files.volume import Volume
from maag.data.geometry import plan_grid
from maag.data.scribbles.styles import simulate
from maag.errors import ConfigError, DataError
from maag.labels import BACKGROUND, IGNORE


@dataclass(frozen=True, eq=False, slots=True)
class CaseArrays:
    """A case's image with its labels on the same grid."""

    volume: Volume
    scribbles: Mapping[str, NDArray[np.uint8]]
    """By rater: (Z, Y, X), IGNORE where nothing is annotated."""
    mask: NDArray[np.uint8] | None
    """(Z, Y, X)."""
    notes: tuple[str, ...] = ()
    """What is odd but usable: `FILE: SENTENCE`, or a sentence about the case."""


def read_case(case: Case, reader: Reader, data: DataConfig) -> CaseArrays:
    """Read the files of `case`.

    Affines of image, scribble and mask may differ, as those of ACDC's scribbles do; shapes may not. In OWN_LAYOUTS,
    different origins are noted.

    Raises:
        ConfigError: `data.unlabelled_value` is not set, and a scribble file needs it.
        DataError: a file is unreadable or cannot be trained on.
        StorageError: a file cannot be opened.
    """
    volume = reader.load_volume(case)
    try:
        plan_grid(volume, data)
    except DataError as error:
        raise DataError(f"{case.images[0]}: {error}") from error
    own = data.dataset in OWN_LAYOUTS
    mask: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()
    if case.masks:
        mask, notes = reader.load_mask(case, data)
        _require_shape(mask, volume, f"mask {case.masks[0]}", case)
        notes += tuple(note for path in case.masks for note in header_differences(path, case.images[0], origins=own))
    scribbles: dict[str, NDArray[np.uint8]] = {}
    for source in case.scribbles:
        if source.rater in scribbles:
            places = " and ".join(
                str(each.path)
                for each in case.scribbles
                if isinstance(each, ScribbleFile) and each.rater == source.rater
            )
            raise DataError(
                f"case {case.case_id} has two scribbles, {places}; remove one of them, or give the folder of the "
                "right ones with --scribbles"
            )
        scribble = _read_scribble(source, case, mask, data)
        _require_shape(scribble, volume, f"scribble {_name(source, case)}", case)
        if not (scribble == BACKGROUND).any():
            raise DataError(
                f"{_name(source, case)}: no voxel is scribbled as background ({BACKGROUND}), so everything "
                "would be learned as foreground: draw at least one background stroke per volume, or check "
                "data.unlabelled_value"
            )
        scribbles[source.rater] = scribble
        if isinstance(source, ScribbleFile):
            if not (scribble == IGNORE).any():
                notes += (_note_fully_annotated(source.path, data),)
            notes += header_differences(source.path, case.images[0], origins=own)
    return CaseArrays(volume, scribbles, mask, notes)


def _read_scribble(
    source: ScribbleFile | SimulatedScribble, case: Case, mask: NDArray[np.uint8] | None, data: DataConfig
) -> NDArray[np.uint8]:
    if isinstance(source, SimulatedScribble):
        assert mask is not None
        return simulate(
            mask, data.num_classes, source.style, ratio=source.ratio, seed=source.seed, case_id=case.case_id
        )
    if data.unlabelled_value is None:
        raise ConfigError(
            f"{source.path}: the value of unlabelled voxels is not set; set it with --set data.unlabelled_value=N "
            "(ITK-SNAP and the published scribbles use different ones)"
        )
    labels = load_label_file(source.path, {*range(data.num_classes), data.unlabelled_value})
    return np.where(labels == data.unlabelled_value, np.uint8(IGNORE), labels)


def _note_fully_annotated(path: Path, data: DataConfig) -> str:
    """A note on a file without an unlabelled voxel: most drawing programs store 0 for those."""
    return (
        f"{path}: no voxel is unlabelled ({data.unlabelled_value}), so all voxels supervise; if {BACKGROUND} means "
        "unlabelled in it, renumber it with `maag data renumber`"
    )


def _name(source: ScribbleFile | SimulatedScribble, case: Case) -> str:
    return str(source.path) if isinstance(source, ScribbleFile) else f"{source.rater} of case {case.case_id}"


def _require_shape(labels: NDArray[np.uint8], volume: Volume, what: str, case: Case) -> None:
    if labels.shape != volume.shape:
        raise DataError(
            f"{what} has shape {labels.shape[::-1]}, its image {case.images[0]} {volume.shape[::-1]} (x, y, z); they "
            "must be the same: export both from the same volume"
        )
