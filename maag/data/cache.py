"""The prepared set: every slice of a data set on the training grid, read once, mapped into memory after."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from maag.config.schema import DataConfig
from maag.data.cache_root import default_cache_root as default_cache_root
from maag.data.case_arrays import CaseArrays, read_case
from maag.data.cases import Case, ScribbleFile, SimulatedScribble, raters_of
from maag.data.catalog import find_cases, reader_of
from maag.data.geometry import labels_to_grid, prepare_image, scribbles_to_grid
from maag.data.prepared import DIGEST_KIND, FORMAT_VERSION, INDEX, PreparedCase, PreparedData, open_prepared
from maag.errors import DataError, StorageError
from maag.labels import BACKGROUND, IGNORE
from maag.storage import building_directory, require_writable_directory, storage_errors, write_json

_PROBLEMS_SHOWN = 10
# Settings that change the arrays; the others, of the split say, leave a prepared set valid.
_SETTINGS = (
    "dataset",
    "classes",
    "channels",
    "unlabelled_value",
    "modality",
    "scribble_seed",
    "spacing_mm",
    "size_px",
    "padding_label",
    "normalization",
)

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""


def prepare(
    directory: Path,
    data: DataConfig,
    cache_root: Path,
    scribbles: Sequence[str] = (),
    progress: Progress | None = None,
) -> PreparedData:
    """The prepared set of the data set in `directory`, built first if it is not there.

    It is built under another name and renamed when whole, so it is never left half made. Of several processes that
    start at once one builds and the others wait; where locks do not work each builds its own and the first one stays.

    Args:
        directory: the data set's folder.
        data: which data set, and the grid.
        cache_root: the folder of all prepared sets.
        scribbles: where scribbles come from, a word for each rater; see `attach_scribbles`.
        progress: called after each case that is read.

    Raises:
        MissingDataError: nothing of the data set is in `directory`.
        DataError: cases that would train wrongly, all of them in one error.
        StorageError: the cache cannot be written.
    """
    return prepare_cases(find_cases(data, directory, scribbles), directory, data, cache_root, progress=progress)


def prepare_cases(
    cases: Collection[Case],
    directory: Path,
    data: DataConfig,
    cache_root: Path,
    *,
    numbers: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> PreparedData:
    """As `prepare`, of some `cases` in `directory`; `numbers` are what their masks' labels become, None: themselves."""
    path = cache_root / f"{data.dataset}-{_key(cases, directory, data, numbers)}"
    if not path.is_dir():
        require_writable_directory(cache_root)
        with FileLock(cache_root / f".{path.name}.lock"):
            if not path.is_dir():
                _build(path, cases, data, numbers, progress)
    return open_prepared(path)


def _key(cases: Collection[Case], directory: Path, data: DataConfig, numbers: Sequence[int] | None) -> str:
    """Changes with settings and with sizes and times of files, which need no reading."""
    sources: list[object] = []
    for case in cases:
        for role, file in _files(case):
            with storage_errors(file, "read"):
                facts = file.stat()
            sources.append((role, os.path.relpath(file, directory), facts.st_size, facts.st_mtime_ns))
    return _digest_of(data, cases, numbers, [FORMAT_VERSION, *sources])


def _digest_of(
    data: DataConfig, cases: Collection[Case], numbers: Sequence[int] | None, sources: Sequence[object]
) -> str:
    """Of settings that shape the arrays, whose each case is, and what is known of the source files."""
    settings = {name: getattr(data, name) for name in _SETTINGS}
    if numbers is not None:
        settings["numbers"] = list(numbers)
    facts = [
        (
            *(case.case_id, case.patient_id, case.frame, case.time, case.part),
            [asdict(scribble) for scribble in case.scribbles if isinstance(scribble, SimulatedScribble)],
        )
        for case in cases
    ]
    canonical = json.dumps([settings, raters_of(cases), facts, sources], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _files(case: Case) -> list[tuple[str, Path]]:
    """All files of a case, each with its role."""
    drawn = [scribble for scribble in case.scribbles if isinstance(scribble, ScribbleFile)]
    return [
        *(("image", path) for path in case.images),
        *(("mask", path) for path in case.masks),
        *((f"scribble {scribble.rater}", scribble.path) for scribble in drawn),
    ]


def _build(
    path: Path,
    cases: Collection[Case],
    data: DataConfig,
    numbers: Sequence[int] | None,
    progress: Progress | None,
) -> None:
    """Write one slice file per array as cases come in, so that memory holds one case at a time."""
    problems: list[str] = []
    prepared: list[PreparedCase] = []
    reader = reader_of(data.dataset)
    raters = raters_of(cases) or ("",)
    with building_directory(path) as folder:
        with (
            (folder / "images.raw").open("wb") as images,
            (folder / "scribbles.raw").open("wb") as scribbles,
            (folder / "masks.raw").open("wb") as masks,
        ):
            start = 0
            for done, case in enumerate(cases, start=1):
                try:
                    arrays = read_case(case, reader, data)
                    on_grid = _on_grid(arrays, raters, data, numbers)
                except (DataError, StorageError) as error:
                    problems.append(str(error))
                    continue
                images.write(np.ascontiguousarray(on_grid[0]).data)
                scribbles.write(np.ascontiguousarray(on_grid[1]).data)
                masks.write(np.ascontiguousarray(on_grid[2]).data)
                prepared.append(_index_entry(case, arrays, start))
                start = prepared[-1].stop
                if progress:
                    progress(done, len(cases))
        if problems:
            raise DataError(_all_problems(problems, len(cases)))
        index = {
            "format_version": FORMAT_VERSION,
            "digest": DIGEST_KIND + _digest_of(data, cases, numbers, [case.sha256 for case in prepared]),
            "num_slices": start,
            "size_px": data.size_px,
            "channels": data.channels,
            "raters": raters,
            "cases": [asdict(case) for case in prepared],
        }
        write_json(folder / INDEX, index)


def _on_grid(
    arrays: CaseArrays, raters: Sequence[str], data: DataConfig, numbers: Sequence[int] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
    images, grid = prepare_image(arrays.volume, data)
    padding = BACKGROUND if data.padding_label == "background" else IGNORE
    unknown = np.full((len(images), *data.size_px), IGNORE, dtype=np.uint8)
    mask = unknown
    if arrays.mask is not None:
        labels = arrays.mask if numbers is None else np.array(numbers, dtype=np.uint8)[arrays.mask]
        mask = labels_to_grid(labels, grid, padding)
    scribbles = [
        scribbles_to_grid(arrays.scribbles[rater], grid, padding) if rater in arrays.scribbles else unknown
        for rater in raters
    ]
    return images, np.stack(scribbles, axis=1), mask


def _index_entry(case: Case, arrays: CaseArrays, start: int) -> PreparedCase:
    classes = {int(value) for scribble in arrays.scribbles.values() for value in np.unique(scribble)} - {IGNORE}
    digests: dict[str, Any] = {}
    for role, file in _files(case):
        digests.setdefault(role, hashlib.sha256()).update(file.read_bytes())
    return PreparedCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        frame=case.frame,
        start=start,
        stop=start + arrays.volume.shape[0],
        source_shape=arrays.volume.shape,
        spacing_mm=arrays.volume.spacing_mm,
        affine=tuple(tuple(row) for row in arrays.volume.affine.tolist()),
        part=case.part,
        raters=tuple(arrays.scribbles),
        has_mask=arrays.mask is not None,
        scribbled_classes=tuple(sorted(classes)),
        sha256={role: digest.hexdigest() for role, digest in digests.items()},
        notes=arrays.notes,
    )


def _all_problems(problems: list[str], total: int) -> str:
    shown = problems[:_PROBLEMS_SHOWN]
    more = f"\n  … and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
    lines = "".join(f"\n  {problem}" for problem in shown)
    return f"{len(problems)} of {total} cases cannot be used; correct them or take them out of the folder:{lines}{more}"
