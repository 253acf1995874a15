"""Cardiac measures from volumes: how large the ventricles are when full and when empty, and how heavy the wall."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from maag.data.cases import patient_and_frame
from maag.errors import ConfigError
from maag.storage.store import Store

MEASURES = "measures.csv"
VENTRICLES = ("LV", "RV")
MYOCARDIUM = "MYO"
_GRAMS_PER_ML = 1.05  # density of myocardium
_FEWEST_FRAMES = 2

Volumes = Mapping[str, float]
"""Millilitres by class."""


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
    whole: dict[str, str] = {}
    single: dict[str, str] = {}
    frames: dict[tuple[str, int], str] = {}
    for target in targets:
        patient, frame = patient_and_frame(_stem(target))
        if frame is None:
            other = whole.get(patient) or single.get(patient)
            whole[patient] = target
        else:
            other = whole.get(patient) or frames.get((patient, frame))
            frames[patient, frame] = single[patient] = target
        if other:
            raise ConfigError(
                f"{other} and {target} would share the patient {patient} in {MEASURES}; "
                "predict them in two calls with different output folders, or leave --measures out"
            )


def write_measures(out: Store, volumes: Mapping[str, Sequence[Volumes]], classes: Sequence[str]) -> int:
    """Write `measures.csv`: a row a patient, empty but for its name where fewer than two frames show a left ventricle.

    End-diastole is the frame with the largest left ventricle, end-systole that with the smallest, so a frame alone may
    be either; a frame where none was found is neither, for no heart empties itself. The mass is that at end-diastole.
    Frames are those of a 4-D
    image, or files of the names `PATIENT_frame01`, `PATIENT_frame12`.

    Args:
        out: the output.
        volumes: by target, relative to the output: what each frame of it holds.
        classes: of the model.

    Returns:
        The number of patients. Raises StorageError.
    """
    there = [name for name in VENTRICLES if name in classes]
    columns = [f"{name}_{measure}" for name in there for measure in ("edv_ml", "esv_ml", "sv_ml", "ef_percent")]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    header = ["patient", "ed_frame", "es_frame", *columns, *(["myo_mass_g"] if MYOCARDIUM in classes else [])]
    rows.writerow(header)
    patients = _by_patient(volumes)
    for patient, frames in sorted(patients.items()):
        left = {frame: volumes_ml[VENTRICLES[0]] for frame, volumes_ml in frames.items()}
        seen = [frame for frame in frames if left[frame] > 0]
        if len(seen) < _FEWEST_FRAMES:
            rows.writerow([patient, *[""] * (len(header) - 1)])
            continue
        full, empty = max(seen, key=left.__getitem__), min(seen, key=left.__getitem__)
        cells: list[object] = [patient, full, empty]
        for name in there:
            cells += _ventricle(frames[full][name], frames[empty][name])
        if MYOCARDIUM in classes:
            cells.append(round(_GRAMS_PER_ML * frames[full][MYOCARDIUM], 2))
        rows.writerow(cells)
    out.write_bytes(MEASURES, text.getvalue().encode())
    return len(patients)


def _ventricle(edv_ml: float, esv_ml: float) -> list[object]:
    stroke = edv_ml - esv_ml
    return [round(edv_ml, 2), round(esv_ml, 2), round(stroke, 2), round(100 * stroke / edv_ml, 2) if edv_ml else ""]


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
