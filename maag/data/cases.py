"""What a data set is made of, whoever reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.files.volume import Volume, load_channels, load_labels

Part = Literal["train", "val", "test"]
_FRAME = re.compile(r"^(.+)_frame(\d+)$")
"""As ACDC, and nnU-Net's own conversion of it, name two volumes of one patient."""


def patient_and_frame(name: str) -> tuple[str, int | None]:
    """Whose a volume is, and which, where only its name tells: X and 12 of `X_frame12`; else the name, and None."""
    found = _FRAME.match(name)
    return (found[1], int(found[2])) if found else (name, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScribbleFile:
    """A scribble that somebody drew."""

    rater: str
    """Who: a name that is the same for all cases of one hand."""
    path: Path
    """NIfTI, or an image for a single slice; labels as in the masks, `data.unlabelled_value` elsewhere."""
    source: int = 0
    """Which of the `--scribbles` it comes from, from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedScribble:
    """A scribble that is drawn from the mask when the case is read."""

    rater: str
    style: str
    ratio: float
    """Part in (0, 1] of each stroke's length that is drawn."""
    seed: int
    source: int = 0
    """Which of the `--scribbles` it comes from, from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One volume with what is known of it."""

    case_id: str
    """Unique in the data set, and fit for a file's name: `patient001_frame01`."""
    patient_id: str
    """Whose it is; splits are by patient: `patient001`."""
    frame: str
    """Which of the patient's volumes: `frame01`."""
    images: tuple[Path, ...]
    """One file, or one for each slice or channel."""
    masks: tuple[Path, ...] = ()
    """One file, or one for each slice; none where there is no mask."""
    scribbles: tuple[ScribbleFile | SimulatedScribble, ...] = ()
    """At most one for each rater."""
    part: Part | None = None
    """Where the data set itself says that the patient belongs."""
    time: int | None = None
    """Which volume of a 4-D image, from 0; None when the image is 3-D."""


def raters_of(cases: Iterable[Case]) -> tuple[str, ...]:
    """All who drew, in the order of `--scribbles`; those of one source, as of a data set's own folders, by name."""
    known = {(scribble.source, scribble.rater) for case in cases for scribble in case.scribbles}
    return tuple(rater for _, rater in sorted(known))


class Mask(NamedTuple):
    """A case's mask, as read."""

    labels: NDArray[np.uint8]
    """(Z, Y, X) in [0, num_classes), slices as in the image."""
    notes: tuple[str, ...] = ()
    """What was odd in the file, though usable."""


class Reader(Protocol):
    """One data set's layout on disk."""

    @property
    def layout(self) -> str:
        """The expected layout in a line, for errors."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Dotted settings that this data set starts with: classes, unlabelled value, grid."""

    @property
    def in_presets(self) -> Mapping[str, Mapping[str, Any]]:
        """By preset, dotted settings that this data set has otherwise in it: its grid, what suits its classes."""

    @property
    def split0(self) -> Mapping[str, frozenset[str]] | None:
        """Patients of the paper's split by part (scribbled, shapes, val, test), where it has one."""

    @property
    def usual_scribbles(self) -> str:
        """Where scribbles come from when nothing is said: `own`, or `simulated:STYLE` for sets published without."""

    def settings(self, directory: Path) -> Mapping[str, Any]:
        """What the data themselves say of dotted settings, such as classes; often nothing. Raises DataError."""

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """All cases below `directory`, sorted by id, with the scribbles that the layout knows of.

        Returns an empty tuple when nothing of the layout is there. Raises DataError for an ambiguous tree.
        """

    def load_volume(self, case: Case) -> Volume:
        """The image. Raises DataError when it is unreadable or would train wrongly."""

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """The mask. Raises DataError when it is unreadable or would train wrongly."""


@runtime_checkable
class PhantomWriter(Protocol):
    """What a Reader may be besides: one that can write synthetic patients."""

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """Write synthetic patients in this layout to the new folder `out`; same seed, same bytes."""


class NiftiReader:
    """The part of a Reader that is alike for all data sets with one NIfTI file for an image, and one for a mask."""

    in_presets: Mapping[str, Mapping[str, Any]] = {}
    split0: Mapping[str, frozenset[str]] | None = None
    usual_scribbles = "own"

    def settings(self, directory: Path) -> Mapping[str, Any]:
        """See Reader."""
        return {}

    def load_volume(self, case: Case) -> Volume:
        """See Reader; further files are further channels."""
        return load_channels(case.images, case.time)

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """See Reader."""
        return Mask(load_labels(case.masks[0], range(data.num_classes))[0])
