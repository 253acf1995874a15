"""Check a whole data set before training: what is there, what is odd, what is unusable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maag.config.data import DataConfig
from maag.data.cache.case_arrays import CaseArrays, read_case
from maag.data.cases import Case
from maag.data.catalog import find_cases, reader_of
from maag.data.files.header_agreement import minority_orientations, minority_slice_axes
from maag.data.notes import merged_notes
from maag.errors import DataError, StorageError
from maag.labels import IGNORE

FORMAT_VERSION = 1
_NOTES_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCheck:
    """Labels of one class."""

    name: str
    cases_in_masks: int
    slices_scribbled: int
    """Slices in which at least one rater annotated it."""
    coverage_mean: float
    """Scribbled pixels of the class in % of a slice at source resolution, mean over slices and raters."""
    coverage_std: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """Result of `maag data check`."""

    directory: str
    counts: dict[str, int]
    classes: tuple[ClassCheck, ...]
    spacing_mm: dict[str, tuple[float, float]]
    """Smallest and largest by axis: z, y, x."""
    shape: dict[str, tuple[int, int]]
    """Smallest and largest by axis: z, y, x."""
    notes: tuple[str, ...]
    """Odd, but usable."""
    problems: tuple[str, ...]
    """One sentence for each unusable case."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}


def check(
    directory: Path,
    data: DataConfig,
    scribbles: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read every case; bad ones are reported and skipped.

    Raises:
        MissingDataError: nothing of the data set is in `directory`.
    """
    cases = find_cases(data, directory, scribbles)
    reader = reader_of(data.dataset)
    tally = _Tally(data)
    for done, case in enumerate(cases, start=1):
        try:
            tally.add(case, read_case(case, reader, data))
        except (DataError, StorageError) as error:
            tally.problems.append(str(error))
        if progress:
            progress(done, len(cases))
    return tally.report(directory, cases)


class _Tally:
    """Counts over the cases read so far."""

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._coverage: list[list[float]] = []  # by rater's slice and class, %
        self._drawn = np.zeros(data.num_classes, dtype=int)  # slices by class, whatever the number of raters
        self._in_masks = np.zeros(data.num_classes, dtype=int)
        self._shapes: list[tuple[int, int, int]] = []
        self._spacings: dict[str, tuple[float, float, float]] = {}  # by case
        self._orientations: dict[str, str | None] = {}  # by case
        self._with_mask = 0
        self._with_scribble = 0
        self._odd: list[tuple[str, str]] = []  # case and note
        self.problems: list[str] = []

    def add(self, case: Case, arrays: CaseArrays) -> None:
        """Count one readable case."""
        self._odd += [(case.case_id, note) for note in arrays.notes]
        self._shapes.append(arrays.volume.shape)
        self._spacings[case.case_id] = arrays.volume.spacing_mm
        self._orientations[case.case_id] = arrays.volume.orientation
        classes = range(self._data.num_classes)
        if arrays.mask is not None:
            self._with_mask += 1
            self._in_masks += [bool((arrays.mask == value).any()) for value in classes]
        self._with_scribble += bool(arrays.scribbles)
        drawn = np.zeros((arrays.volume.shape[0], len(classes)), dtype=bool)
        for scribble in arrays.scribbles.values():
            for place, plane in enumerate(scribble):
                counts = np.bincount(plane.ravel(), minlength=IGNORE + 1)[: len(classes)]
                drawn[place] |= counts > 0
                self._coverage.append((100 * counts / plane.size).tolist())
        self._drawn += drawn.sum(axis=0)

    def report(self, directory: Path, cases: tuple[Case, ...]) -> CheckReport:
        """The counts as a report."""
        coverage = np.array(self._coverage).reshape(-1, self._data.num_classes)
        classes = tuple(
            ClassCheck(
                name=name,
                cases_in_masks=int(self._in_masks[value]),
                slices_scribbled=int(self._drawn[value]),
                coverage_mean=float(coverage[:, value].mean()) if len(coverage) else 0.0,
                coverage_std=float(coverage[:, value].std()) if len(coverage) else 0.0,
            )
            for value, name in enumerate(self._data.classes)
        )
        shapes = np.array(self._shapes).reshape(-1, 3)
        spacings = np.array(list(self._spacings.values())).reshape(-1, 3)
        return CheckReport(
            directory=str(directory),
            counts={
                "patients": len({case.patient_id for case in cases}),
                "cases": len(cases),
                "usable cases": len(self._shapes),
                "cases with a mask": self._with_mask,
                "cases with a scribble": self._with_scribble,
                "slices": int(shapes[:, 0].sum()),
            },
            classes=classes,
            spacing_mm={axis: _range(spacings[:, place]) for place, axis in enumerate("zyx")} if len(spacings) else {},
            shape={axis: _whole(_range(shapes[:, place])) for place, axis in enumerate("zyx")} if len(shapes) else {},
            notes=tuple(self._notes(cases, classes)),
            problems=tuple(self.problems),
        )

    def _notes(self, cases: tuple[Case, ...], classes: tuple[ClassCheck, ...]) -> list[str]:
        notes = []
        if self._with_scribble:
            notes += [
                f"class {item.name} has no scribble at all, so the segmentor cannot learn it from scribbles"
                for item in classes
                if item.slices_scribbled == 0
            ]
        for role in ("scribble", "mask"):
            without = [case.case_id for case in cases if not getattr(case, f"{role}s")]
            if without:
                have = "1 case has" if len(without) == 1 else f"{len(without)} cases have"
                notes.append(f"{have} no {role}; the first is {without[0]}")
        notes += minority_orientations(self._orientations) + minority_slice_axes(self._spacings)
        odd = merged_notes(self._odd)
        return notes + odd[:_NOTES_SHOWN] + _rest(odd)


def _rest(notes: list[str]) -> list[str]:
    more = len(notes) - _NOTES_SHOWN
    return [f"… and {more} more of this kind"] if more > 0 else []


def _range(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _whole(values: tuple[float, float]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
