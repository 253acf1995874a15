"""DICOM series and enhanced files as sources of segmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from enhanced_dicom import AXIAL, save_enhanced

from maag.data.phantoms.dicom_files import save_slice

CLASSES = ("background", "LV", "right kidney", "gizmo")
SHAPE = (4, 6, 9)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
PATIENT = {"PatientID": "P7", "PatientName": "Doe^Jane", "PatientBirthDate": "19700102", "PatientSex": "F"}


def write_series(
    folder: Path, orientation: tuple[float, ...] = AXIAL, reverse: bool = False, tags: dict[str, Any] | None = None
) -> list[Path]:
    """Write four slices 7 mm apart; `reverse` numbers and names them from the highest to the lowest."""
    normal = np.cross(orientation[:3], orientation[3:])
    for index in range(SHAPE[0]):
        number = SHAPE[0] - index if reverse else index + 1
        x, y, z = np.array([-10.0, 5.0, 3.0]) + 7.0 * index * normal
        save_slice(
            folder / f"{number}.dcm",
            np.full(SHAPE[1:], 100 * index, np.uint16),
            spacing_mm=1.5,
            thickness_mm=7.0,
            position=(float(x), float(y), float(z)),
            series="one",
            number=number,
            tags={"ImageOrientationPatient": list(orientation), **PATIENT, **(tags or {})},
        )
    return sorted(folder.iterdir())


def write_enhanced_file(
    path: Path, *, per_frame: bool = False, shared: dict[str, Any] | None = None, **tags: Any
) -> list[int]:
    """Write one file of four frames; return the index of each, counted from the lowest."""
    indices = [2, 0, 3, 1]
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    common = {"ImageOrientationPatient": list(OBLIQUE), "PixelSpacing": [1.5, 1.5], "SliceThickness": None}
    frames = [
        {"ImagePositionPatient": [float(value) for value in 7.0 * index * normal], **(common if per_frame else {})}
        for index in indices
    ]
    shared = {**(dict.fromkeys(common) if per_frame else common), **(shared or {})}
    save_enhanced(path, np.zeros(SHAPE, np.uint16), frames, shared=shared, tags={**PATIENT, **tags})
    return indices
