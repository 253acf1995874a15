"""LVSC (STACOM 2011): short-axis cine-MR of infarcted hearts as DICOM, with masks of the myocardium as PNG."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maag.config.data import DataConfig
from maag.data.cases import Case, Mask, ReaderDefaults
from maag.data.datasets.mask_slices import load_mask_slice
from maag.data.files.dicom_file import SliceGeometry, read_geometry
from maag.data.files.dicom_series import load_series, order_of_slices
from maag.data.files.folder_tree import files_below
from maag.data.files.volume import Volume
from maag.errors import DataError, StorageError

SLICE_NAME = re.compile(r"^(DET\d{7})_SA(\d+)_ph(\d+)$", re.IGNORECASE)
"""Stems of short-axis slices and of their masks: study, slice, phase."""
_CASE_NAME = re.compile(r"^(.*DET\d{7})_ph(\d+)(?:_size(\d+))?$", re.DOTALL)
_LONG_AXIS_NAME = re.compile(r"^DET\d{7}_LA\d+_ph\d+$", re.IGNORECASE)
_DICOM, _PNG = ".dcm", ".png"

_Size = tuple[object, ...]
"""Shape and spacing of the slices at a position; empty where no file of it can be read."""


@dataclass(frozen=True, slots=True)
class _Slice:
    study: str
    number: int
    phase: int
    image: Path
    mask: Path | None


class LvscReader(ReaderDefaults):
    """Study folders at any depth, `DET0000101_SA1_ph0.dcm` with a PNG of the same stem.

    The masks may be in another folder. Long-axis files are ignored. A case is one phase of one study; slices of another
    size than most of their study's are cases of their own.
    """

    layout = "DET0000101/DET0000101_SA1_ph0.dcm with DET0000101_SA1_ph0.png beside it, at any depth"
    defaults: Mapping[str, Any] = {
        "data.classes": ["background", "MYO"],
        "data.unlabelled_value": 2,
        "data.spacing_mm": 1.45,
        "data.size_px": [224, 224],
    }
    # The heart is in the middle of the image, so a fast grid may crop. Without teacher.gates walls become too thick.
    preset_settings: Mapping[str, Mapping[str, Any]] = {
        "fast": {"data.spacing_mm": 2.0, "data.size_px": [96, 96]},
        "best-fast": {"data.spacing_mm": 2.0, "data.size_px": [96, 96], "teacher.gates": 0.5},
        "best": {"teacher.gates": 0.5},
    }
    default_scribbles = "simulated:random-walk"

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """See Reader."""
        return tuple(sorted(_cases_among(_find_slices(directory)), key=lambda case: case.case_id))

    def load_volume(self, case: Case) -> Volume:
        """See Reader."""
        return load_series(case.images)

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """See Reader; every value but 0 is myocardium, in grey and in colour files."""
        by_stem = {path.stem.upper(): path for path in case.masks}
        planes = []
        for place in order_of_slices(case.images):
            image = case.images[place]
            if image.stem.upper() not in by_stem:
                raise DataError(
                    f"{image}: has no mask {image.stem}.png, unlike other slices of case {case.case_id}; restore it, "
                    "or remove the slice"
                )
            planes.append((load_mask_slice(by_stem[image.stem.upper()], image) > 0).astype(np.uint8))
        return Mask(np.stack(planes))

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """See Reader."""
        from maag.data.phantoms.lvsc import write_studies

        write_studies(out / "CAP_challenge" / "CAP_challenge_training_set" / "DicomFiles", num_cases, seed)


class PhasePart(NamedTuple):
    """The parts of a case's name."""

    study: str
    phase: int
    size: int
    """Rank of the slices' size in the study, from 1 for the most common one."""


def phase_part(case: str) -> PhasePart | None:
    """Parse `DET0000101_ph00` and `DET0000101_ph00_size2`, also with folders before; None for any other name."""
    match = _CASE_NAME.match(case)
    return PhasePart(match[1], int(match[2]), int(match[3] or 1)) if match else None


class NamedVolume(NamedTuple):
    """DICOM files that belong to one volume by their names."""

    images: tuple[Path, ...]
    even: bool
    """Whether its slices should be evenly spaced: there are no slices of another size to explain a gap."""


def volumes_among(
    files: Iterable[Path], geometry_of: Callable[[Path], SliceGeometry] = read_geometry
) -> dict[str, NamedVolume]:
    """The volumes of the DICOM files of one folder by the files' names; keys are case ids, as the reader's.

    A study's phases are one DICOM series, with slices at the same positions. A long-axis slice, which is no case, is a
    volume of its own under its stem. Slices at a position that is unreadable in all phases are in every volume of their
    phase, so that each of these fails: nobody knows which one lacks them.

    Args:
        files: other files among them are ignored.
        geometry_of: reads a slice's header, for one phase of each position; may raise DataError or StorageError.
    """
    images = [path for path in files if path.suffix.lower() == _DICOM]
    matches = [(path, match) for path in images if (match := SLICE_NAME.match(path.stem))]
    slices = [_Slice(match[1].upper(), int(match[2]), int(match[3]), path, None) for path, match in matches]
    volumes = {path.stem: NamedVolume((path,), True) for path in images if _LONG_AXIS_NAME.match(path.stem)}
    for study, members in _by_study(slices).items():
        volumes |= _volumes_of(study, members, geometry_of)
    return volumes


def _volumes_of(
    study: str, slices: list[_Slice], geometry_of: Callable[[Path], SliceGeometry]
) -> dict[str, NamedVolume]:
    sizes = _sizes_of(slices, geometry_of)
    cases = _cases_of(study, [item for item in slices if sizes[item.number]], sizes)
    lost = {case.frame: case for case in _cases_of(study, [item for item in slices if not sizes[item.number]], sizes)}
    in_phase = Counter(case.frame for case in cases)
    # A phase without a readable slice has no other case, and fails under this name.
    volumes = {case.case_id: NamedVolume(case.images, True) for case in lost.values()}
    for case in cases:
        beside = lost[case.frame].images if case.frame in lost else ()
        volumes[case.case_id] = NamedVolume((*case.images, *beside), in_phase[case.frame] == 1)
    return volumes


def _find_slices(directory: Path) -> list[_Slice]:
    masks: dict[str, list[Path]] = defaultdict(list)
    images: dict[str, Path] = {}
    for path in sorted(files_below(directory)):
        match = SLICE_NAME.match(path.stem)
        if match is None:
            continue
        if path.suffix.lower() == _PNG:
            masks[path.stem.upper()].append(path)
        elif path.suffix.lower() == _DICOM:
            if path.stem.upper() in images:
                raise DataError(f"{path}: is there twice, also as {images[path.stem.upper()]}; keep one of them")
            images[path.stem.upper()] = path
    found = []
    for stem, path in images.items():
        match = SLICE_NAME.match(stem)
        assert match is not None
        beside = [mask for mask in masks[stem] if mask.parent == path.parent] or masks[stem]
        if len(beside) > 1:
            raise DataError(f"{path}: has two masks, {beside[0]} and {beside[1]}; keep one of them")
        found.append(_Slice(match[1].upper(), int(match[2]), int(match[3]), path, beside[0] if beside else None))
    return found


def _cases_among(slices: Iterable[_Slice]) -> list[Case]:
    return [
        case
        for study, members in _by_study(slices).items()
        for case in _cases_of(study, members, _sizes_of(members, read_geometry))
    ]


def _by_study(slices: Iterable[_Slice]) -> dict[str, list[_Slice]]:
    by_study: dict[str, list[_Slice]] = defaultdict(list)
    for item in slices:
        by_study[item.study].append(item)
    return by_study


def _cases_of(study: str, slices: list[_Slice], sizes: Mapping[int, _Size]) -> list[Case]:
    """The study's cases, one for each phase and each size of slices."""
    ranked = Counter(sizes[number] for number in sorted({item.number for item in slices})).most_common()
    cases = []
    for phase in sorted({item.phase for item in slices}):
        for rank, (size, _) in enumerate(ranked):
            members = sorted(
                (item for item in slices if item.phase == phase and sizes[item.number] == size),
                key=lambda item: item.number,
            )
            if members:
                suffix = f"_size{rank + 1}" if rank else ""
                cases.append(
                    Case(
                        case_id=f"{study}_ph{phase:02}{suffix}",
                        patient_id=study,
                        frame=f"ph{phase:02}",
                        images=tuple(item.image for item in members),
                        masks=tuple(item.mask for item in members if item.mask),
                    )
                )
    return cases


def _sizes_of(slices: Iterable[_Slice], geometry_of: Callable[[Path], SliceGeometry]) -> dict[int, _Size]:
    """The slices' size by position, from the first phase that can be read, as all phases share it."""
    sizes: dict[int, _Size] = {}
    for item in sorted(slices, key=lambda item: item.phase):
        if not sizes.get(item.number):
            sizes[item.number] = _size(item.image, geometry_of)
    return sizes


def _size(image: Path, geometry_of: Callable[[Path], SliceGeometry]) -> _Size:
    """Empty for unreadable files, which are reported when they are loaded."""
    try:
        geometry = geometry_of(image)
    except (DataError, StorageError):
        return ()
    return geometry.shape, tuple(round(value, 3) for value in geometry.spacing_mm)
