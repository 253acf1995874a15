"""Renumber label files: in drawing programs 0 is unlabelled, but here it is background."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.data.files.folder_tree import files_below
from maag.data.files.label_files import stem_of, suffix_of
from maag.data.files.nifti import is_nifti, open_nifti, read_array
from maag.data.files.nifti_writing import save_labels
from maag.data.files.pictures import load_label_indices, save_indices
from maag.data.files.volume import near_integers
from maag.errors import ConfigError, DataError, MissingDataError, StorageError
from maag.storage import require_writable_directory

LARGEST = 255
"""Of the labels that are written, in 8 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenumberReport:
    """Result of `renumber`."""

    files: int
    """Written."""
    voxels: dict[int, int]
    """By old number, over all files written."""
    problems: tuple[str, ...]
    """One sentence for each file that was not written."""


def label_files(paths: Iterable[Path], out: Path | None = None) -> list[Path]:
    """The label files in `paths` and, for folders, at any depth below. Raises MissingDataError where there are none.

    What an earlier call wrote to `out`, inside one of these folders, is left out.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MissingDataError(f"{path}: no such label file or folder")
        if path.is_file():
            found.append(path)
            continue
        written = out.resolve() if out and path.resolve() in out.resolve().parents else None
        inside = (file for file in files_below(path) if suffix_of(file))
        found += sorted(file for file in inside if written not in (file.parent.resolve() / file.name).parents)
    if not found:
        raise MissingDataError(
            f"{', '.join(map(str, paths))}: no label file found; labels are NIfTI, PNG or TIFF files"
        )
    return found


def renumber(
    sources: Sequence[Path],
    out: Path,
    numbers: Mapping[int, int],
    progress: Callable[[int, int], None] | None = None,
    *,
    overwrite: bool = False,
) -> RenumberReport:
    """Write each file under its own name to the folder `out`, skipping bad ones; all numbers change at once.

    Args:
        sources: label files; NIfTI stays NIfTI, on its own grid, and pictures become PNG.
        out: the output folder.
        numbers: new number by old one; others stay as they are.
        progress: called with (files done, files in all) after each.
        overwrite: replace files that are already in `out`.

    Raises:
        ConfigError: a new number beyond 8 bits, two sources with one name, or a source that would be replaced.
        StorageError: `out` is no folder to write in, or holds one of the files, unless `overwrite`.
    """
    for old, new in numbers.items():
        if not 0 <= new <= LARGEST:
            raise ConfigError(f"--number {old}={new}: new numbers must be 0 to {LARGEST}")
    targets: dict[Path, Path] = {}
    for source in sources:
        target = out / (source.name if is_nifti(source) else f"{stem_of(source)}.png")
        if target in targets:
            raise ConfigError(f"{targets[target]} and {source} would both be written to {target}; give one at a time")
        if target.exists() and source.samefile(target):
            raise ConfigError(
                f"--out {out}: {target.name} would replace itself, and its labels would be lost; choose another folder"
            )
        if target.exists() and not overwrite:
            raise StorageError(f"{target} already exists; choose another --out, or --overwrite")
        targets[target] = source
    require_writable_directory(out)
    voxels: dict[int, int] = {}
    problems = []
    for done, (target, source) in enumerate(targets.items(), start=1):
        try:
            for value, count in _renumber_one(source, target, numbers).items():
                voxels[value] = voxels.get(value, 0) + count
        except (DataError, StorageError) as error:
            problems.append(str(error))
        if progress:
            progress(done, len(targets))
    return RenumberReport(files=len(targets) - len(problems), voxels=voxels, problems=tuple(problems))


def _renumber_one(source: Path, target: Path, numbers: Mapping[int, int]) -> dict[int, int]:
    """Number of voxels by old number. Raises DataError and StorageError."""
    values = near_integers(_read(source))
    planes = values.reshape(-1, *values.shape[-2:])
    counts: Counter[float] = Counter()
    for plane in planes:  # np.unique of a whole volume would take a dozen times its memory
        found, times = np.unique(plane, return_counts=True)
        counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
    for value in counts:
        if not np.isfinite(value) or value != int(value):
            raise DataError(f"{source}: has the value {value:g}, but labels are whole numbers: export it as labels")
    old = sorted(map(int, counts))
    for value in old:
        if value not in numbers and not 0 <= value <= LARGEST:
            raise DataError(
                f"{source}: has the number {value}, but labels must be 0 to {LARGEST}; renumber it with --number "
                f"{value}=N"
            )
        joined = next((other for other in old if numbers.get(other) == value), None)
        if value not in numbers and joined is not None:
            raise DataError(
                f"{source}: has the number {value} already, which {joined} would become; renumber it with --number "
                f"{value}=N, or join both with --number {value}={value}"
            )
    becomes = np.array([numbers.get(value, value) for value in old], dtype=np.uint8)
    new = np.stack([becomes[np.searchsorted(old, plane)] for plane in planes]).reshape(values.shape)
    if is_nifti(source):
        save_labels(target, new, source, ())
    else:
        save_indices(target, new)
    return {value: counts[value] for value in old}


def _read(path: Path) -> NDArray[np.generic]:
    """(Z, Y, X) of a NIfTI file, (Y, X) of a picture, as stored. Raises DataError and StorageError."""
    if is_nifti(path):
        return read_array(open_nifti(path), path)
    return load_label_indices(path)
