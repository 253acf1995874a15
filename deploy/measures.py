"""A table of the measures of hearts, from the volumes that predictions have."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from maag.data.cases import patient_and_frame
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
                f"{other} and {target} would share the patient {patient_and_frame(_stem(target))[0]} in {MEASURES}; "
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


class _Places:
    """Rows of patients, and the places of frames in them."""

    def __init__(self) -> None:
        self._whole: dict[str, str] = {}
        self._single: dict[str, str] = {}
        self._frames: dict[tuple[str, int], str] = {}

    def taken_by(self, target: str) -> str | None:
        """The target that is where this one belongs."""
        patient, frame = patient_and_frame(_stem(target))
        if frame is None:
            return self._whole.get(patient) or self._single.get(patient)
        return self._whole.get(patient) or self._frames.get((patient, frame))

    def take(self, target: str) -> None:
        patient, frame = patient_and_frame(_stem(target))
        if frame is None:
            self._whole[patient] = target
        else:
            self._frames[patient, frame] = self._single[patient] = target


def write_measures(out: Store, volumes: Mapping[str, Sequence[Volumes]], classes: Sequence[str]) -> int:
    """Write `measures.csv`: a row a patient, empty but for its name where `end_frames` tells none.

    Frames are those of a 4-D image, or files of the names `PATIENT_frame01`, `PATIENT_frame12`.

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
    """By patient, named by the path without frame and ending: volumes by frame, counted from 1."""
    patients: dict[str, dict[int, Volumes]] = {}
    for target, frames in volumes.items():
        patient, frame = patient_and_frame(_stem(target))
        if frame is not None and len(frames) == 1:
            patients.setdefault(patient, {})[frame] = frames[0]
        else:
            patients.setdefault(_stem(target), {}).update(enumerate(frames, start=1))
    return patients


def _stem(target: str) -> str:
    return re.sub(r"\.(nii(\.gz)?|dcm|png)$", "", target, flags=re.IGNORECASE)
