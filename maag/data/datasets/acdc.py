"""ACDC: cardiac cine-MR at end-diastole and end-systole, with the paper's expert scribbles."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from maag.config.data import DataConfig
from maag.data.cases import Case, NiftiReader, ScribbleFile
from maag.data.files.folder_tree import files_below, is_there
from maag.data.files.volume import num_volumes
from maag.errors import ConfigError, DataError, StorageError

_IMAGE = re.compile(r"^(patient\d{3})_(frame\d{2,})\.nii(\.gz)?$")
_CINE = re.compile(r"^(patient\d{3})_4d\.nii(\.gz)?$")
_PUBLISHED_SCRIBBLES = "acdc_scribbles"
_SCRIBBLE_FOLDERS = (_PUBLISHED_SCRIBBLES, "scribbles")


def _patients(*numbers: int) -> frozenset[str]:
    return frozenset(f"patient{number:03}" for number in numbers)


SPLIT0: Mapping[str, frozenset[str]] = {
    "scribbled": _patients(
        *(37, 50, 53, 100, 38, 19, 61, 74, 97, 31, 91, 35, 56, 94, 26, 69, 46, 59),
        *(4, 89, 71, 6, 52, 43, 45, 63, 93, 14, 98, 88, 21, 28, 99, 54, 90),
    ),
    "shapes": _patients(
        *(2, 76, 34, 85, 70, 86, 3, 8, 51, 40, 7, 13, 47, 55, 12, 58, 87, 9),
        *(65, 62, 33, 42, 23, 92, 29, 11, 83, 68, 75, 67, 16, 48, 66, 20, 15),
    ),
    "val": _patients(84, 32, 27, 96, 17, 18, 57, 81, 79, 22, 1, 44, 49, 25, 95),
    "test": _patients(5, 39, 77, 82, 78, 10, 64, 24, 30, 73, 80, 41, 36, 60, 72),
}
"""The paper's only released split: 35 patients with scribbles, and 35 others whose masks the discriminator sees."""


class AcdcReader(NiftiReader):
    """The challenge's folders, its current archive, or one flat folder.

    Scribbles are beside the images, in `acdc_scribbles` or `scribbles` in the data set's folder, or in `acdc_scribbles`
    beside it.
    """

    layout = (
        "patientNNN/patientNNN_frameFF.nii.gz with _gt and _scribble beside it, in the folder itself or in training/, "
        "or the same files in one flat folder"
    )
    defaults: Mapping[str, Any] = {
        "data.classes": ["background", "RV", "MYO", "LV"],
        "data.unlabelled_value": 4,
        "data.spacing_mm": 1.5117105,
        "data.size_px": [224, 224],
    }
    # The heart is in the middle of the image, so the crop loses little but background.
    preset_settings: Mapping[str, Mapping[str, Any]] = {
        "fast": {"data.spacing_mm": 2.0, "data.size_px": [96, 96]},
        "best-fast": {
            "data.spacing_mm": 2.0,
            "data.size_px": [96, 96],
            "loss.class_weights": 0.0,
            "teacher.gates": 0.5,
        },
        "best": {"data.size_px": [160, 160], "loss.class_weights": 0.0, "teacher.gates": 0.5},
    }
    split0: Mapping[str, frozenset[str]] | None = SPLIT0

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """See Reader; with `data.cine` in semi-supervision the frames of the 4-D files are cases too."""
        # Beside the path as given, not beside what a link points to; beside "." is "..".
        beside = Path(os.path.normpath(directory / os.pardir)) / _PUBLISHED_SCRIBBLES
        flat = [folder for folder in (*(directory / name for name in _SCRIBBLE_FOLDERS), beside) if folder.is_dir()]
        cases = [
            self._case(path, match, flat)
            for path in sorted(files_below(directory))
            if (match := _IMAGE.match(path.name)) and "__MACOSX" not in path.parts
        ]
        if data.supervision == "semi" and data.cine:
            cases += self._cine(directory, {case.case_id for case in cases})
        return tuple(sorted(cases, key=lambda case: case.case_id))

    def _cine(self, directory: Path, known: set[str]) -> list[Case]:
        found = []
        for path in sorted(files_below(directory)):
            match = _CINE.match(path.name)
            if match is None or "__MACOSX" in path.parts:
                continue
            try:
                count = num_volumes(path)
            except (DataError, StorageError):  # reading the case reports the error, and goes on with others
                found.append(Case(case_id=f"{match[1]}_4d", patient_id=match[1], frame="4d", images=(path,)))
                continue
            for time in range(count):
                frame = f"frame{time + 1:02}"
                case_id = f"{match[1]}_{frame}"
                if case_id not in known:
                    found.append(Case(case_id=case_id, patient_id=match[1], frame=frame, images=(path,), time=time))
        return found

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """See Reader."""
        from maag.data.phantoms.acdc import write_short_axis_patients

        parts = ("scribbled", "shapes", "scribbled", "shapes", "val", "scribbled", "shapes", "test")
        order = ("scribbled", "shapes", "val", "test", *parts)
        waiting = {part: sorted(SPLIT0[part]) for part in SPLIT0}
        most = sum(map(len, waiting.values()))
        if num_cases > most:
            raise ConfigError(f"{num_cases} patients: ACDC's layout has {most} at most; ask for fewer")
        chosen: list[str] = []
        for part in chain(order, parts * num_cases):
            if len(chosen) == num_cases:
                break
            if waiting[part]:
                chosen.append(waiting[part].pop(0))
        write_short_axis_patients(out / "training", sorted(chosen), seed)

    def _case(self, image: Path, match: re.Match[str], scribble_folders: list[Path]) -> Case:
        patient, frame, gz = match.groups()
        stem = f"{patient}_{frame}"
        scribble_names = [f"{stem}_scribble.nii{ending}" for ending in (gz or "", ".gz", "")]
        candidates = [folder / name for folder in (image.parent, *scribble_folders) for name in scribble_names]
        masks = tuple(filter(is_there, (image.parent / f"{stem}_gt.nii{ending}" for ending in (".gz", ""))))
        if len(masks) > 1:
            raise DataError(f"case {stem} has two masks, {masks[0]} and {masks[1]}; keep one of them")
        return Case(
            case_id=stem,
            patient_id=patient,
            frame=frame,
            images=(image,),
            masks=masks,
            scribbles=tuple(ScribbleFile(rater="expert", path=path) for path in _distinct_files(candidates)),
        )


def _distinct_files(candidates: list[Path]) -> list[Path]:
    """The `candidates` that exist, without copies; of several different ones only the user knows which is right."""
    found: list[Path] = []
    for path in filter(is_there, candidates):
        if not any(_are_copies(path, other) for other in found):
            found.append(path)
    return found


def _are_copies(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)
