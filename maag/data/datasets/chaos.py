"""CHAOS: abdominal MR (T1 in-phase, T1 out-phase, T2-SPIR) with four organs, and CT with the liver; DICOM and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cases import Case, Mask, ReaderDefaults
from maag.data.datasets.mask_slices import load_mask_slice
from maag.data.files.dicom_series import load_series, order_of_slices, require_even
from maag.data.files.folder_tree import files_below
from maag.data.files.natural_order import natural_key
from maag.data.files.volume import Volume
from maag.errors import DataError

_SERIES: Final[Mapping[str, str]] = {
    "t1in": "T1DUAL/DICOM_anon/InPhase",
    "t1out": "T1DUAL/DICOM_anon/OutPhase",
    "t2spir": "T2SPIR/DICOM_anon",
}
_DICOM = ".dcm"
GREYS: Final[Mapping[int, tuple[int, int]]] = {1: (55, 70), 2: (110, 135), 3: (175, 200), 4: (240, 255)}
"""By class (liver, right kidney, left kidney, spleen): lowest and highest grey value, as the organisers define them."""


class ChaosReader(ReaderDefaults):
    """MR: `MR/<id>/T1DUAL/DICOM_anon/InPhase/*.dcm` and its siblings, masks in `Ground/*.png`.

    Masks are paired with images by stem where the stems agree, else by the order of names, which must then follow the
    order in space.
    """

    layout = "MR/<id>/T1DUAL/DICOM_anon/InPhase/*.dcm with MR/<id>/T1DUAL/Ground/*.png, and T2SPIR beside T1DUAL"
    defaults: Mapping[str, Any] = {
        "data.classes": ["background", "liver", "right kidney", "left kidney", "spleen"],
        "data.unlabelled_value": 5,
        "data.spacing_mm": 1.61,
        "data.size_px": [192, 192],
    }
    default_scribbles = "simulated:skeleton-dilated"

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """See Reader."""
        series = _SERIES[data.modality]
        found = []
        for folder in _folders_of_slices(directory, series):
            top = folder.parents[series.count("/")]
            ground = top / series.partition("/")[0] / "Ground"
            found.append(_case(f"mr{top.name:0>2}", data.modality, folder, ground))
        return tuple(sorted(found, key=lambda case: case.case_id))

    def load_volume(self, case: Case) -> Volume:
        """See Reader."""
        require_even(case.images)
        return load_series(case.images)

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """See Reader; grey values outside the organs' ranges are background, and a note counts them."""
        stored = _ordered_masks(case)
        labels = np.zeros(stored.shape, dtype=np.uint8)
        for value, (lowest, highest) in GREYS.items():
            labels[(stored >= lowest) & (stored <= highest)] = value
        stray = int(((labels == 0) & (stored != 0)).sum())
        notes = (f"{stray} mask pixels have a grey value of no organ, taken as background",) if stray else ()
        return Mask(labels, notes)

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """See Reader."""
        from maag.data.phantoms.chaos import write_mr_patients

        write_mr_patients(out / "Train_Sets" / "MR", num_cases, seed)


class ChaosCtReader(ReaderDefaults):
    """CT: `CT/<id>/DICOM_anon/*.dcm`, liver masks in `Ground/*.png`."""

    layout = "CT/<id>/DICOM_anon/*.dcm with CT/<id>/Ground/*.png"
    defaults: Mapping[str, Any] = {
        "data.classes": ["background", "liver"],
        "data.unlabelled_value": 2,
        "data.spacing_mm": 1.5,
        "data.size_px": [256, 256],
    }
    default_scribbles = "simulated:skeleton-dilated"

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """See Reader."""
        folders = [
            folder
            for folder in _folders_of_slices(directory, "DICOM_anon")
            if folder.parent.name not in ("T1DUAL", "T2SPIR")
        ]
        found = [_case(f"ct{folder.parent.name:0>2}", "ct", folder, folder.parent / "Ground") for folder in folders]
        return tuple(sorted(found, key=lambda case: case.case_id))

    def load_volume(self, case: Case) -> Volume:
        """See Reader; in Hounsfield units."""
        require_even(case.images)
        return load_series(case.images)

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """See Reader; every value but 0 is liver."""
        return Mask((_ordered_masks(case) > 0).astype(np.uint8))

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """See Reader."""
        from maag.data.phantoms.chaos import write_ct_patients

        write_ct_patients(out / "Train_Sets" / "CT", num_cases, seed)


def _folders_of_slices(directory: Path, series: str) -> list[Path]:
    folders = {path.parent for path in files_below(directory) if path.suffix.lower() == _DICOM}
    return sorted(folder for folder in folders if f"/{folder.as_posix()}".endswith(f"/{series}"))


def _case(patient: str, frame: str, folder: Path, ground: Path) -> Case:
    return Case(
        case_id=f"{patient}_{frame}",
        patient_id=patient,
        frame=frame,
        images=_sorted_files(folder, _DICOM),
        masks=_sorted_files(ground, ".png"),
    )


def _sorted_files(folder: Path, suffix: str) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    files = [path for path in folder.iterdir() if path.suffix.lower() == suffix and not path.name.startswith("._")]
    return tuple(sorted(files, key=lambda path: natural_key(path.name)))


def _ordered_masks(case: Case) -> NDArray[Any]:
    """(Z, Y, X) grey values, with slices in the images' order in space."""
    order = order_of_slices(case.images)
    partners = _partners(case, order)
    return np.stack([load_mask_slice(partners[place], case.images[place]) for place in order])


def _partners(case: Case, order: Sequence[int]) -> Sequence[Path]:
    """The mask of each image, in the order of the images' names."""
    if len(case.images) != len(case.masks):
        raise DataError(
            f"{case.masks[0].parent}: {len(case.masks)} masks for the {len(case.images)} images of "
            f"{case.images[0].parent}; every slice needs a mask: restore the missing ones"
        )
    by_stem = {path.stem: path for path in case.masks}
    if all(image.stem in by_stem for image in case.images):
        return [by_stem[image.stem] for image in case.images]
    names_follow_space = list(order) in (sorted(order), sorted(order, reverse=True))
    if not names_follow_space:
        raise DataError(
            f"{case.masks[0].parent}: its names differ from those of {case.images[0].parent}, which do not follow the "
            "slices' order in space, so masks cannot be paired with images; name each mask like its image"
        )
    return case.masks
