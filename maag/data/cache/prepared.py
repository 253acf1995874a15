"""A prepared set, opened: all slices of a data set on the training grid, mapped into memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maag.data.cases import Part
from maag.data.splits import Patient
from maag.errors import DataError, StorageError
from maag.storage import read_json, storage_errors

FORMAT_VERSION = 10
INDEX = "index.json"
DIGEST_KIND = "sha256-"
"""How digests of data begin; earlier versions had others, of file times and of the format, without it."""
SHAPES_KIND = "shapes-"
"""The same of masks from another folder, which earlier versions digested with the scribbles beside them, without it."""
_TUPLES = ("source_shape", "spacing_mm", "raters", "notes")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedCase:
    """Where a case's slices lie, and where they came from."""

    key: str
    """Changes with the settings that shape its arrays, and with sizes and times of its files."""
    case_id: str
    patient_id: str
    frame: str
    start: int
    stop: int
    """Slices start to stop (exclusive) of the arrays."""
    source_shape: tuple[int, int, int]
    """(Z, Y, X)."""
    spacing_mm: tuple[float, float, float]
    """(z, y, x)."""
    affine: tuple[tuple[float, ...], ...]
    orientation: str | None
    """Orientation code such as `LPS`; None where it is unknown or the axes are oblique."""
    part: Part | None
    """Where the data set itself says that the patient belongs."""
    raters: tuple[str, ...]
    """Whose scribbles there are."""
    has_mask: bool
    sha256: dict[str, str]
    """Of the source files, by role: image, mask, and each rater's scribble."""
    notes: tuple[str, ...]
    """What was odd in the files, though usable: `FILE: SENTENCE`, or a sentence about the case."""


_FIELDS = tuple(each.name for each in fields(PreparedCase))


@dataclass(frozen=True, eq=False, slots=True)
class PreparedData:
    """All slices of a data set, S in number, memory-mapped."""

    directory: Path
    digest: str
    """Changes with what is in any source file and with any setting that shapes the arrays; copies have the same."""
    images: NDArray[np.float32]
    """(S, C, H, W), normalised."""
    scribbles: NDArray[np.uint8]
    """(S, R, H, W), by rater; IGNORE where no stroke is."""
    masks: NDArray[np.uint8]
    """(S, H, W), IGNORE all over where a case has none."""
    raters: tuple[str, ...]
    """Who scribbled; R in number, one without a name where there is no scribble at all."""
    cases: tuple[PreparedCase, ...]

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(patient.patient_id for patient in self.patients)

    @property
    def patients(self) -> tuple[Patient, ...]:
        """What there is of each patient, sorted by id."""
        cases: dict[str, list[PreparedCase]] = defaultdict(list)
        for case in self.cases:
            cases[case.patient_id].append(case)
        return tuple(
            Patient(
                patient_id=patient_id,
                scribbled=any(case.raters for case in of_patient),
                masked=any(case.has_mask for case in of_patient),
                part=next((case.part for case in of_patient if case.part), None),
            )
            for patient_id, of_patient in sorted(cases.items())
        )

    def slices_of(
        self, patients: Collection[str], *, scribbled: bool = False, masked: bool = False
    ) -> NDArray[np.int64]:
        """Indices of the slices of `patients`, on request only of cases with a scribble, or with a mask."""
        members = set(patients)
        wanted = [
            np.arange(case.start, case.stop)
            for case in self.cases
            if case.patient_id in members and (case.raters or not scribbled) and (case.has_mask or not masked)
        ]
        return np.concatenate(wanted) if wanted else np.empty(0, dtype=np.int64)


def open_prepared(path: Path) -> PreparedData:
    """The prepared set in the folder `path`. Raises StorageError when it is of another format or damaged."""
    index: dict[str, Any] = read_json(path / INDEX)
    if index["format_version"] != FORMAT_VERSION:
        raise StorageError(f"{path}: a prepared set of format {index['format_version']}; remove the folder")
    plane = tuple(index["size_px"])
    slices = index["num_slices"]
    cases = []
    for entry in index["cases"]:
        # Not all that is there, for sets of this format that are older tell more.
        values = {name: entry[name] for name in _FIELDS}
        tuples = {name: tuple(entry[name]) for name in _TUPLES}
        cases.append(PreparedCase(**{**values, **tuples, "affine": tuple(map(tuple, entry["affine"]))}))
    with storage_errors(path, "read"):
        return PreparedData(
            directory=path,
            digest=index["digest"],
            images=np.memmap(path / "images.raw", np.float32, "r", shape=(slices, index["channels"], *plane)),
            scribbles=np.memmap(path / "scribbles.raw", np.uint8, "r", shape=(slices, len(index["raters"]), *plane)),
            masks=np.memmap(path / "masks.raw", np.uint8, "r", shape=(slices, *plane)),
            raters=tuple(index["raters"]),
            cases=tuple(cases),
        )


def require_same(prepared: PreparedData, digest: str, directory: str) -> None:
    """Refuse data in `directory` that are not those of `digest`, which others train on. Raises DataError."""
    if prepared.digest != digest:
        raise DataError(
            f"{directory}: has other data (digest {prepared.digest}) than training was begun on ({digest}); share the "
            "folder, or copy the same files to all nodes"
        )


def tells_of_others(before: str, now: str) -> bool:
    """Whether the digest of the data `before` says that they were others; one of an earlier version says nothing.

    Where masks came from another folder, both are two digests, joined by `joined_digest`.
    """
    olds, news = before.split("+"), now.split("+")
    return len(olds) != len(news) or any(
        old.startswith(kind) and old != new
        for kind, old, new in zip((DIGEST_KIND, SHAPES_KIND), olds, news, strict=False)
    )


def joined_digest(prepared: PreparedData, shapes: PreparedData | None) -> str:
    """Of all that a run trains on."""
    return prepared.digest if shapes is None else f"{prepared.digest}+{shapes.digest}"
