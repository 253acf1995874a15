"""What a data set is made of, whoever reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One volume with what is known of it."""

    case_id: str
    """Unique in the data set: `patient001_frame01`."""
    patient_id: str
    """Whose it is; splits are by patient: `patient001`."""
    frame: str
    """Which of the patient's volumes: `frame01`."""
    image: Path
    scribble: Path | None
    mask: Path | None


class Reader(Protocol):
    """One data set's layout on disk."""

    @property
    def layout(self) -> str:
        """The expected layout in a line, for errors."""

    @property
    def split0(self) -> Mapping[str, frozenset[str]] | None:
        """Patients of the paper's split by part (scribbled, shapes, val, test), where it has one."""

    def find_cases(self, directory: Path, scribbles: Path | None) -> tuple[Case, ...]:
        """All cases below `directory`, sorted; `scribbles` is a folder to look for scribbles in, besides.

        Returns an empty tuple when nothing of the layout is there. Raises DataError for an ambiguous tree.
        """

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """Write synthetic patients in this layout to the new folder `out`; same seed, same bytes."""
