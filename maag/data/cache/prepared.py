"""A prepared set: all slices of a data set on the training grid, memory-mapped."""

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
from maag.errors import DataError, StorageError, first_line
from maag.labels import IGNORE
from maag.storage import read_json, storage_errors

FORMAT_VERSION = 12
INDEX = "index.json"
DIGEST_KIND = "sha256-"
"""Prefix of digests of data; earlier versions digested file times and the format as well, and had no prefix."""
SHAPES_KIND = "shapes-"
"""Prefix of digests of masks from another folder; earlier versions digested scribbles as well, and had no prefix."""
_IMAGES, _SCRIBBLES, _MASKS = "images.raw", "scribbles.raw", "masks.raw"
_TUPLES = ("source_shape", "spacing_mm", "raters", "notes")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedCase:
    """Where the slices of a case are in the arrays, and where they came from."""

    key: str
    """Changes with the settings that shape its arrays, and with the sizes and times of its files."""
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
    """The part of the split that the data set itself assigns the patient to."""
    raters: tuple[str, ...]
    """Whose scribbles it has."""
    has_mask: bool
    sha256: dict[str, str]
    """Of the source files, by role: image, mask, and each rater's scribble."""
    notes: tuple[str, ...]
    """What is odd but usable: `FILE: SENTENCE`, or a sentence about the case."""


_FIELDS = tuple(each.name for each in fields(PreparedCase))


@dataclass(frozen=True, eq=False, slots=True)
class PreparedData:
    """All S slices of a data set, memory-mapped."""

    directory: Path
    digest: str
    """Changes with the content of any source file and with any setting that shapes the arrays; the same for copies."""
    images: NDArray[np.float32]
    """(S, C, H, W), normalised."""
    scribbles: NDArray[np.uint8]
    """(S, R, H, W), by rater; IGNORE where nothing is annotated."""
    masks: NDArray[np.uint8]
    """(S, H, W), all IGNORE where a case has none."""
    raters: tuple[str, ...]
    """Names of the R raters; one empty name where there is no scribble at all."""
    cases: tuple[PreparedCase, ...]

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(patient.patient_id for patient in self.patients)

    @property
    def patients(self) -> tuple[Patient, ...]:
        """All patients, sorted by id."""
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
        """Indices of the slices of `patients`, only of cases with a scribble or a mask if so asked."""
        members = set(patients)
        wanted = [
            np.arange(case.start, case.stop)
            for case in self.cases
            if case.patient_id in members and (case.raters or not scribbled) and (case.has_mask or not masked)
        ]
        return np.concatenate(wanted) if wanted else np.empty(0, dtype=np.int64)

    def annotated_labels(self, slices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(N, H, W) labels of the masks of some slices, or of their scribbles where they have no mask; else IGNORE."""
        masks = self.masks[slices]
        # IGNORE is the largest value, so the minimum is a label if any rater drew one.
        return np.where(masks == IGNORE, self.scribbles[slices].min(axis=1), masks)


def open_prepared(path: Path) -> PreparedData:
    """Open the prepared set in the folder `path`. Raises StorageError for another format or a damaged set."""
    for name in (INDEX, _IMAGES, _SCRIBBLES, _MASKS):
        if not (path / name).exists():
            raise _damaged(path, f"{name} is missing")
    index: dict[str, Any] = read_json(path / INDEX)
    try:
        return _opened(path, index)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, first_line(error)) from error


def _damaged(path: Path, what: str) -> StorageError:
    """An error for a set that, for example, a clean-up of old files left in part."""
    return StorageError(f"{path}: a damaged prepared set ({what}); remove the folder, and it is prepared again")


def _opened(path: Path, index: dict[str, Any]) -> PreparedData:
    if index["format_version"] != FORMAT_VERSION:
        raise StorageError(f"{path}: a prepared set of format {index['format_version']}; remove the folder")
    plane = tuple(index["size_px"])
    slices = index["num_slices"]
    cases = []
    for entry in index["cases"]:
        # Only known fields, as older sets of this format have more.
        values = {name: entry[name] for name in _FIELDS}
        tuples = {name: tuple(entry[name]) for name in _TUPLES}
        cases.append(PreparedCase(**{**values, **tuples, "affine": tuple(map(tuple, entry["affine"]))}))
    with storage_errors(path, "read"):
        return PreparedData(
            directory=path,
            digest=index["digest"],
            images=np.memmap(path / _IMAGES, np.float32, "r", shape=(slices, index["channels"], *plane)),
            scribbles=np.memmap(path / _SCRIBBLES, np.uint8, "r", shape=(slices, len(index["raters"]), *plane)),
            masks=np.memmap(path / _MASKS, np.uint8, "r", shape=(slices, *plane)),
            raters=tuple(index["raters"]),
            cases=tuple(cases),
        )


def require_same_data(prepared: PreparedData, digest: str, directory: str) -> None:
    """Raise DataError unless the data in `directory` have the `digest` that training began with."""
    if prepared.digest != digest:
        raise DataError(
            f"{directory}: has other data (digest {prepared.digest}) than training began with ({digest}); share the "
            "folder, or copy the same files to all nodes"
        )


def data_changed(before: str, now: str) -> bool:
    """Whether the digest `before` is of other data than `now`; one of an earlier version, without a prefix, never is.

    Both may be two digests joined by `joined_digest`, where masks came from another folder.
    """
    olds, news = before.split("+"), now.split("+")
    return len(olds) != len(news) or any(
        old.startswith(kind) and old != new
        for kind, old, new in zip((DIGEST_KIND, SHAPES_KIND), olds, news, strict=False)
    )


def joined_digest(prepared: PreparedData, shapes: PreparedData | None) -> str:
    """Digest of all data that a run trains on."""
    return prepared.digest if shapes is None else f"{prepared.digest}+{shapes.digest}"
