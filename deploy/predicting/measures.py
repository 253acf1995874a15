"""`measures.csv`: cardiac measures from the volumes of predicted structures."""

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
    """Raise ConfigError unless the model labels the left ventricle, which determines the ED and ES frames."""
    if VENTRICLES[0] not in classes:
        raise ConfigError(
            f"--measures needs a model that labels {VENTRICLES[0]}, but this one labels {', '.join(classes[1:])}; "
            "leave the option out"
        )


def require_distinct_rows(targets: Iterable[str]) -> None:
    """Check, before hours of work, that no two labels share a place in the rows.

    Args:
        targets: label paths relative to the output.

    Raises:
        ConfigError: two have the same name but for the suffix, or are the same frame, or a patient has both a file of
            all frames and files of single frames.
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
    """The targets `wanted`, which have distinct rows, and `earlier` ones that conflict with none before them."""
    places, found = _Places(), list(wanted)
    for target in wanted:
        places.take(target)
    for target in earlier:
        if not places.taken_by(target):
            places.take(target)
            found.append(target)
    return found


class _Place(NamedTuple):
    """Patient and frame of a volume, from its name."""

    patient: str
    """The path without frame and suffix."""
    frame: int | None
    """Frame number in the name; None if the name has none, so the volume is the whole patient."""
    part: int = 1
    """Which of the volumes that make up the frame: slices of another size are a volume of their own."""


class _Places:
    """Places in the table that targets occupy."""

    def __init__(self) -> None:
        self._whole: dict[str, str] = {}
        self._single: dict[str, str] = {}
        self._frames: dict[_Place, str] = {}

    def taken_by(self, target: str) -> str | None:
        """The target that occupies the place of this one, if any."""
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
    """Write `measures.csv`: a row per patient, empty but for the name if `end_frames` finds no ED and ES frame.

    Frames are those of a 4-D image, counted from 1, or files named `PATIENT_frame01`, `PATIENT_frame12`, or phases of
    LVSC studies, `DET0000101_ph00`, by the numbers in their names.

    Args:
        out: the output.
        volumes: volumes of each frame by target, relative to the output.
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
    """Volumes by patient and frame, summed over its parts; a frame that lacks a part of the others is left out."""
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
