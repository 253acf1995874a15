"""A table of the measures of hearts, from the volumes that predictions have."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from maag.data.cases import patient_and_frame
from maag.data.datasets.lvsc import phase_part
from maag.errors import ConfigError
from maag.evaluate.heart import VENTRICLES, Volumes, end_frames, measure_heart, measure_names
from maag.storage.store import Store

MEASURES = "measures.csv"
KEYS = ("patient", "ed_frame", "es_frame")
"""Its first columns."""


def require_heart(classes: Sequence[str]) -> None:
    """Raise ConfigError unless the model labels the left ventricle, by which the frames are told apart."""
    if VENTRICLES[0] not in classes:
        raise ConfigError(
            f"--measures needs a model that labels {VENTRICLES[0]}, this one labels {', '.join(classes[1:])}; "
            "leave it out"
        )


def require_told_apart(targets: Iterable[str]) -> None:
    """Refuse labels of which one would take another's place in the rows, before hours of work.

    Args:
        targets: of the labels, relative to the output.

    Raises:
        ConfigError: two are of one name but for the ending, or of one frame, or a file of a whole patient lies beside
            files of its frames.
    """
    places = _Places()
    for target in targets:
        if other := places.taken_by(target):
            raise ConfigError(
                f"{other} and {target} would share the patient {_place_of(target).patient} in {MEASURES}; "
                "predict them in two calls with different output folders, or leave --measures out"
            )
        places.take(target)


def with_earlier(wanted: Sequence[str], earlier: Iterable[str]) -> list[str]:
    """The targets `wanted`, which are told apart, and of the `earlier` ones those that would share no row with any
    before them.
    """
    places, found = _Places(), list(wanted)
    for target in wanted:
        places.take(target)
    for target in earlier:
        if not places.taken_by(target):
            places.take(target)
            found.append(target)
    return found


class _Place(NamedTuple):
    """Where a volume belongs, by its name."""

    patient: str
    """The path without frame and ending."""
    frame: int | None
    """As its name has it; None where the volume is by its name all that there is of the patient."""
    part: int = 1
    """Which of the volumes that make the frame: slices of another size are one of their own."""


class _Places:
    """Rows of patients, and the places of frames in them."""

    def __init__(self) -> None:
        self._whole: dict[str, str] = {}
        self._single: dict[str, str] = {}
        self._frames: dict[_Place, str] = {}

    def taken_by(self, target: str) -> str | None:
        """The target that is where this one belongs."""
        place = _place_of(target)
        if place.frame is None:
            return self._whole.get(place.patient) or self._single.get(place.patient)
        return self._whole.get(place.patient) or self._frames.get(place)

    def take(self, target: str) -> None:
        place = _place_of(target)
        if place.frame is None:
            self._whole[place.patient] = target
        else:
            self._frames[place] = self._single[place.patient] = target


def write_measures(out: Store, volumes: Mapping[str, Sequence[Volumes]], classes: Sequence[str]) -> int:
    """Write `measures.csv`: a row a patient, empty but for its name where `end_frames` tells none.

    Frames are those of a 4-D image, counted from 1, or files of the names `PATIENT_frame01`, `PATIENT_frame12`, or
    phases of LVSC's studies, `DET0000101_ph00`, by the numbers in their names.

    Args:
        out: the output.
        volumes: by target, relative to the output: what each frame of it holds.
        classes: of the model.

    Returns:
        The number of patients. Raises StorageError.
    """
    names = measure_names(classes)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*KEYS, *names])
    patients = _by_patient(volumes)
    for patient, frames in sorted(patients.items()):
        ends = end_frames(frames)
        if ends is None:
            rows.writerow([patient, *[""] * (len(KEYS) - 1 + len(names))])
            continue
        full, empty = ends
        measured = measure_heart(frames[full], frames[empty])
        values = (measured[name] for name in names)
        rows.writerow([patient, full, empty, *("" if value is None else round(value, 2) for value in values)])
    out.write_bytes(MEASURES, text.getvalue().encode())
    return len(patients)


def _by_patient(volumes: Mapping[str, Sequence[Volumes]]) -> dict[str, dict[int, Volumes]]:
    """By patient and frame what it holds, in all of its parts; a frame that lacks one that others have is left out."""
    parts: dict[str, dict[int, list[Volumes]]] = defaultdict(lambda: defaultdict(list))
    for target, frames in volumes.items():
        place = _place_of(target)
        if place.frame is not None and len(frames) == 1:
            parts[place.patient][place.frame].append(frames[0])
        else:
            parts[_stem(target)] |= {number: [frame] for number, frame in enumerate(frames, start=1)}
    patients = {}
    for patient, by_frame in parts.items():
        whole = max(map(len, by_frame.values()), default=0)
        patients[patient] = {frame: _sum(found) for frame, found in by_frame.items() if len(found) == whole}
    return patients


def _sum(parts: Sequence[Volumes]) -> Volumes:
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def _place_of(target: str) -> _Place:
    stem = _stem(target)
    part = phase_part(stem)
    return _Place(part.study, part.phase, part.size) if part else _Place(*patient_and_frame(stem))


def _stem(target: str) -> str:
    return re.sub(r"\.(nii(\.gz)?|dcm|png)$", "", target, flags=re.IGNORECASE)
