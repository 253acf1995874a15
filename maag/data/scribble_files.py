"""Simulate scribble files from mask files, on the masks' grid, and measure their coverage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cases import Case, Reader
from maag.data.catalog import find_cases, reader_of
from maag.data.files.folder_tree import files_below
from maag.data.files.label_files import LABEL_ENDINGS, SUFFIXES, load_label_file, stem_of, suffix_of
from maag.data.files.nifti import is_nifti
from maag.data.files.nifti_writing import save_labels, save_volume
from maag.data.files.pictures import save_indices
from maag.data.scribbles.styles import coverage, simulate
from maag.errors import ConfigError, DataError, MissingDataError, StorageError
from maag.labels import IGNORE
from maag.storage import require_writable_directory

_MASK_ENDINGS = tuple(ending for ending in LABEL_ENDINGS if not ending.startswith("_scribble"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScribbleOptions:
    """How to simulate scribbles."""

    style: str
    ratio: float
    seed: int
    num_classes: int
    """Background included."""
    unlabelled_value: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskSource:
    """A mask, and how to write its scribble."""

    name: str
    """Name of the case; the scribble's file is NAME_scribble."""
    path: Path
    read: Callable[[], NDArray[np.uint8]]
    """Return (Z, Y, X) uint8 labels. Raises DataError or StorageError."""
    write: Callable[[NDArray[np.uint8], Path], None]
    """Write (Z, Y, X) uint8 labels to a path without suffix. Raises StorageError."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ScribbledMask:
    """A mask whose scribble was written."""

    source: MaskSource
    coverage: NDArray[np.float64]
    """(Z, num_classes) scribbled part of each class's area in %, NaN where a slice does not have the class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScribblingReport:
    """Result of `scribble_masks`."""

    done: tuple[ScribbledMask, ...]
    problems: tuple[str, ...]
    """One sentence for each mask that could not be scribbled."""


def mask_files(paths: Iterable[Path], sheet: Path | None = None) -> list[MaskSource]:
    """The mask files in `paths` and, for folders, at any depth below, except the contact `sheet` of an earlier call.

    Where some names below a folder end with `_gt`, `_mask`, `_m`, `_label` or `_seg`, only those are masks. Scribbles
    get their mask's file type and grid. Raises MissingDataError where there are none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MissingDataError(f"{path}: no such mask file or folder")
        inside = [path] if path.is_file() else sorted(file for file in files_below(path) if suffix_of(file))
        inside = [file for file in inside if sheet is None or file.parent.resolve() / file.name != sheet]
        named = [file for file in inside if stem_of(file).endswith(_MASK_ENDINGS)]
        found += named or [file for file in inside if not stem_of(file).endswith("_scribble")]
    if not found:
        raise MissingDataError(f"{', '.join(map(str, paths))}: no mask found; masks are NIfTI, PNG or TIFF files")
    return [_of_file(path) for path in found]


def masks_of_dataset(data: DataConfig, directory: Path) -> list[MaskSource]:
    """The masks of a data set; scribbles are NIfTI on the images' grid, named by case as `--scribbles` expects.

    Raises as `find_cases`, and MissingDataError where no case has a mask.
    """
    reader = reader_of(data.dataset)
    cases = [case for case in find_cases(data, directory) if case.masks]
    if not cases:
        raise MissingDataError(f"{directory}: no case of {data.dataset} has a mask to scribble from")
    return [_of_case(case, reader, data) for case in cases]


def count_classes(masks: Iterable[MaskSource]) -> int:
    """The largest label of all masks plus 1; `scribble_masks` reports unreadable ones."""
    largest = 1
    for mask in masks:
        try:
            largest = max(largest, int(mask.read().max()))
        except (DataError, StorageError):
            continue
    return largest + 1


def scribble_masks(
    masks: Sequence[MaskSource],
    out: Path,
    options: ScribbleOptions,
    progress: Callable[[int, int], None] | None = None,
    *,
    overwrite: bool = False,
) -> ScribblingReport:
    """Write the scribble of each mask to the folder `out`, skipping bad masks.

    Raises:
        ConfigError: the unlabelled value is a class, or two masks have the same name.
        StorageError: `out` is no folder to write in, or holds one of the scribbles, unless `overwrite`.
    """
    if options.unlabelled_value < options.num_classes:
        raise ConfigError(
            f"--unlabelled {options.unlabelled_value} is a label of the masks; it must be at least "
            f"{options.num_classes}"
        )
    known: dict[str, Path] = {}
    for mask in masks:
        if mask.name in known:
            raise ConfigError(
                f"{known[mask.name]} and {mask.path} would both get the scribble {mask.name}_scribble; give one folder "
                "at a time"
            )
        known[mask.name] = mask.path
        existing = next((path for path in _targets(mask.name, out) if path.exists()), None)
        if existing and not overwrite:
            raise StorageError(
                f"{existing} already exists, perhaps drawn by hand; choose another --out, or --overwrite"
            )
    require_writable_directory(out)
    done, problems = [], []
    for number, mask in enumerate(masks, start=1):
        try:
            done.append(_scribble_one(mask, out, options))
        except (DataError, StorageError) as error:
            problems.append(str(error))
        if progress:
            progress(number, len(masks))
    return ScribblingReport(done=tuple(done), problems=tuple(problems))


def strokes_of(mask: NDArray[np.uint8], name: str, options: ScribbleOptions) -> NDArray[np.uint8]:
    """The scribble (Z, Y, X) of a mask, IGNORE where unlabelled."""
    return simulate(mask, options.num_classes, options.style, ratio=options.ratio, seed=options.seed, case_id=name)


def _scribble_one(source: MaskSource, out: Path, options: ScribbleOptions) -> ScribbledMask:
    mask = source.read()
    if mask.max() >= options.num_classes:
        raise DataError(
            f"{source.path}: has label {mask.max()}, --classes {options.num_classes} allows 0 to "
            f"{options.num_classes - 1}; correct one of them (grey values that encode classes need --dataset)"
        )
    strokes = strokes_of(mask, source.name, options)
    drawn = np.where(strokes == IGNORE, np.uint8(options.unlabelled_value), strokes)
    source.write(drawn, out / f"{source.name}_scribble")
    covered = [coverage(part, plane, options.num_classes) for part, plane in zip(strokes, mask, strict=True)]
    return ScribbledMask(source=source, coverage=np.stack(covered))


def _targets(name: str, out: Path) -> tuple[Path, ...]:
    return tuple(out / f"{name}_scribble{suffix}" for suffix in SUFFIXES)


def _of_file(path: Path) -> MaskSource:
    stem = stem_of(path)
    ending = next((ending for ending in _MASK_ENDINGS if stem.endswith(ending)), "")

    def write(drawn: NDArray[np.uint8], target: Path) -> None:
        if is_nifti(path):
            save_labels(target.with_name(f"{target.name}.nii.gz"), drawn, path, ())
        else:
            save_indices(target.with_name(f"{target.name}.png"), drawn[0])

    return MaskSource(
        name=stem.removesuffix(ending), path=path, read=lambda: load_label_file(path, range(IGNORE)), write=write
    )


def _of_case(case: Case, reader: Reader, data: DataConfig) -> MaskSource:
    def write(drawn: NDArray[np.uint8], target: Path) -> None:
        save_volume(target.with_name(f"{target.name}.nii.gz"), drawn, reader.load_volume(case).affine)

    return MaskSource(
        name=case.case_id, path=case.masks[0], read=lambda: reader.load_mask(case, data).labels, write=write
    )
