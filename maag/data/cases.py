"""Cases, their scribbles and masks, and the protocol of a data set's reader."""

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
"""How ACDC, and nnU-Net's own conversion of it, name the two volumes of a patient."""


def patient_and_frame(name: str) -> tuple[str, int | None]:
    """Patient and frame from a volume's name: X and 12 of `X_frame12`; else the name itself and None."""
    found = _FRAME.match(name)
    return (found[1], int(found[2])) if found else (name, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScribbleFile:
    """A scribble in a file."""

    rater: str
    """Who drew it; the same name in all cases."""
    path: Path
    """NIfTI, or a picture of a single slice; labels as in the masks, `data.unlabelled_value` where unlabelled."""
    source: int = 0
    """Index of its source in `--scribbles`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedScribble:
    """A scribble that is simulated from the mask when the case is read."""

    rater: str
    style: str
    ratio: float
    """Fraction in (0, 1] of each stroke's length that is kept."""
    seed: int
    source: int = 0
    """Index of its source in `--scribbles`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One volume and the files that belong to it."""

    case_id: str
    """Unique in the data set, and usable as a file name: `patient001_frame01`."""
    patient_id: str
    """Splits are by patient: `patient001`."""
    frame: str
    """Which of the patient's volumes: `frame01`."""
    images: tuple[Path, ...]
    """One file, or one for each slice or channel."""
    masks: tuple[Path, ...] = ()
    """One file, or one for each slice; none where there is no mask."""
    scribbles: tuple[ScribbleFile | SimulatedScribble, ...] = ()
    """At most one for each rater."""
    part: Part | None = None
    """The part of the split that the data set itself assigns the patient to."""
    time: int | None = None
    """Index of the volume in a 4-D image; None for a 3-D image."""


def raters_of(cases: Iterable[Case]) -> tuple[str, ...]:
    """Names of all raters, in the order of `--scribbles`; within one source, such as rater folders, by name."""
    known = {(scribble.source, scribble.rater) for case in cases for scribble in case.scribbles}
    return tuple(rater for _, rater in sorted(known))


class Mask(NamedTuple):
    """A case's mask, as read."""

    labels: NDArray[np.uint8]
    """(Z, Y, X) in [0, num_classes), slices as in the image."""
    notes: tuple[str, ...] = ()
    """What is odd in the file, but usable."""


class Reader(Protocol):
    """One data set's layout on disk."""

    @property
    def layout(self) -> str:
        """The expected layout in one line, for errors."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Default dotted settings of this data set: classes, unlabelled value, grid."""

    @property
    def preset_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """By preset, dotted settings that differ for this data set, such as the grid."""

    @property
    def split0(self) -> Mapping[str, frozenset[str]] | None:
        """Patients by part (scribbled, shapes, val, test) of the paper's split; None where there is none."""

    @property
    def default_scribbles(self) -> str:
        """Default source of scribbles: `own`, or `simulated:STYLE` for sets published without scribbles."""

    def settings(self, directory: Path) -> Mapping[str, Any]:
        """Dotted settings that the data determine, such as classes; often none. Raises DataError."""

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """All cases below `directory`, sorted by id, with the scribbles of the layout.

        Empty where nothing of the layout is there. Raises DataError for an ambiguous tree.
        """

    def load_volume(self, case: Case) -> Volume:
        """Read the image. Raises DataError when it is unreadable or cannot be trained on."""

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """Read the mask. Raises DataError when it is unreadable or cannot be trained on."""


@runtime_checkable
class PhantomWriter(Protocol):
    """A Reader that can also write synthetic patients."""

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """Write synthetic patients in this layout to the new folder `out`; same seed, same bytes."""


class ReaderDefaults:
    """The members of Reader that are alike for most data sets."""

    preset_settings: Mapping[str, Mapping[str, Any]] = {}
    split0: Mapping[str, frozenset[str]] | None = None
    default_scribbles = "own"

    def settings(self, directory: Path) -> Mapping[str, Any]:
        """See Reader; none."""
        return {}


class NiftiReader(ReaderDefaults):
    """Base of readers of data sets with NIfTI images and one NIfTI file for a mask."""

    def load_volume(self, case: Case) -> Volume:
        """See Reader; each file is a channel."""
        return load_channels(case.images, case.time)

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """See Reader."""
        return Mask(load_labels(case.masks[0], range(data.num_classes))[0])
