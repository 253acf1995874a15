"""Building the prepared set: every slice of a data set on the training grid, read once, then memory-mapped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from maag.config.data import DataConfig
from maag.data.cache.case_arrays import CaseArrays, read_case
from maag.data.cache.kept_cases import KeptCases, keep_part
from maag.data.cache.prepared import DIGEST_KIND, FORMAT_VERSION, PreparedCase, PreparedData, open_prepared
from maag.data.cache.root import default_cache_root as default_cache_root
from maag.data.cache.set_writer import CaseSlices, SetWriter
from maag.data.cases import Case, Reader, ScribbleFile, SimulatedScribble, raters_of
from maag.data.catalog import find_cases, reader_of
from maag.data.geometry import labels_to_grid, prepare_image, scribbles_to_grid
from maag.errors import DataError, StorageError
from maag.labels import BACKGROUND, IGNORE
from maag.storage import building_directory, require_writable_directory, storage_errors

_PROBLEMS_SHOWN = 10
_BYTES_AT_ONCE = 2**20
# Settings that change the arrays; others, such as the split's, leave a prepared set valid.
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
    """The prepared set of the data set in `directory`, built first if it is not in the cache.

    It is built under another name and renamed when complete. Of several processes that start at once one builds and the
    others wait; where locks do not work each builds its own and the first one stays.

    Args:
        directory: the data set's folder.
        data: which data set, and the grid.
        cache_root: the folder of all prepared sets.
        scribbles: sources of scribbles, as `attach_scribbles` takes them; empty: the data set's default.
        progress: called after each case.

    Raises:
        MissingDataError: nothing of the data set is in `directory`.
        DataError: cases that cannot be trained on, all of them in one error.
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
    """As `prepare`, of some `cases` in `directory`; `numbers` maps the labels of their masks, unless it is None."""
    path = cache_root / f"{data.dataset}-{_key(cases, directory, data, numbers)}"
    if not path.is_dir():
        require_writable_directory(cache_root)
        with _locked(cache_root / f".{path.name}.lock"):
            if not path.is_dir():
                _build(path, cases, directory, data, numbers, progress)
    return open_prepared(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. Raises StorageError, for example where it is another user's in a shared cache."""
    lock = FileLock(path)
    with storage_errors(path):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _key(cases: Collection[Case], directory: Path, data: DataConfig, numbers: Sequence[int] | None) -> str:
    """Digest of settings and of the sizes and times of files, without reading them."""
    return _digest_of(data, cases, numbers, [FORMAT_VERSION, *_sources(cases, directory)])


def _sources(cases: Collection[Case], directory: Path) -> list[object]:
    """Role, relative path, size and time of each file of the cases."""
    sources: list[object] = []
    for case in cases:
        for role, file in _files(case):
            with storage_errors(file, "read"):
                facts = file.stat()
            sources.append((role, os.path.relpath(file, directory), facts.st_size, facts.st_mtime_ns))
    return sources


def _digest_of(
    data: DataConfig, cases: Collection[Case], numbers: Sequence[int] | None, sources: Sequence[object]
) -> str:
    """Digest of the settings that shape the arrays, of the cases' names, and of what is known of the `sources`."""
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
    scribbles = [scribble for scribble in case.scribbles if isinstance(scribble, ScribbleFile)]
    return [
        *(("image", path) for path in case.images),
        *(("mask", path) for path in case.masks),
        *((f"scribble {scribble.rater}", scribble.path) for scribble in scribbles),
    ]


def _build(
    path: Path,
    cases: Collection[Case],
    directory: Path,
    data: DataConfig,
    numbers: Sequence[int] | None,
    progress: Progress | None,
) -> None:
    """Write all cases, from the cache where they are kept, else from their files; on failure keep those done."""
    problems: list[str] = []
    reader = reader_of(data.dataset)
    raters = raters_of(cases) or ("",)
    keys = [
        _digest_of(data, [case], numbers, [FORMAT_VERSION, *raters, *_sources([case], directory)]) for case in cases
    ]
    kept = KeptCases(path.parent, data.dataset, keys)
    with building_directory(path) as folder, SetWriter(folder, data, raters) as writer:
        try:
            for done, (key, case) in enumerate(zip(keys, cases, strict=True), start=1):
                try:
                    writer.add(*(kept.of(key) or _read(case, key, reader, raters, data, numbers)))
                except DataError as error:
                    problems.append(str(error))
                if progress:
                    progress(done, len(cases))
            if problems:
                raise DataError(_all_problems(problems, len(cases)))
        except BaseException:  # Ctrl-C and SIGTERM, bad cases, a full disk
            keep_part(writer, folder, path, kept)
            raise
        contents = [case.sha256 for case in writer.cases]
        writer.write_index(DIGEST_KIND + _digest_of(data, cases, numbers, contents))
    kept.remove_parts(path, [case.case_id for case in cases])


def _read(
    case: Case, key: str, reader: Reader, raters: Sequence[str], data: DataConfig, numbers: Sequence[int] | None
) -> tuple[PreparedCase, CaseSlices]:
    """Read a case from its files. Raises DataError."""
    try:
        arrays = read_case(case, reader, data)
        entry = _index_entry(case, key, arrays)
    except StorageError as error:
        raise DataError(str(error)) from error
    return entry, _on_grid(arrays, raters, data, numbers)


def _on_grid(arrays: CaseArrays, raters: Sequence[str], data: DataConfig, numbers: Sequence[int] | None) -> CaseSlices:
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
    return CaseSlices(images, np.stack(scribbles, axis=1), mask)


def _index_entry(case: Case, key: str, arrays: CaseArrays) -> PreparedCase:
    """The index entry of a case, with `start` and `stop` as if it were alone in the set."""
    digests: dict[str, Any] = {}
    for role, file in _files(case):
        digest = digests.setdefault(role, hashlib.sha256())
        with storage_errors(file, "read"), file.open("rb") as stream:
            while part := stream.read(_BYTES_AT_ONCE):
                digest.update(part)
    return PreparedCase(
        key=key,
        case_id=case.case_id,
        patient_id=case.patient_id,
        frame=case.frame,
        start=0,
        stop=arrays.volume.shape[0],
        source_shape=arrays.volume.shape,
        spacing_mm=arrays.volume.spacing_mm,
        affine=tuple(tuple(row) for row in arrays.volume.affine.tolist()),
        orientation=arrays.volume.orientation,
        part=case.part,
        raters=tuple(arrays.scribbles),
        has_mask=arrays.mask is not None,
        sha256={role: digest.hexdigest() for role, digest in digests.items()},
        notes=arrays.notes,
    )


def _all_problems(problems: list[str], total: int) -> str:
    shown = problems[:_PROBLEMS_SHOWN]
    more = f"\n  … and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
    lines = "".join(f"\n  {problem}" for problem in shown)
    return (
        f"{len(problems)} of {total} cases cannot be used; correct them or take them out of the folder (only changed "
        f"files are read again):{lines}{more}"
    )
