"""The prepared set: every slice of a data set on the training grid, read once, mapped into memory after."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from maag.config.schema import DataConfig
from maag.data.case_arrays import CaseArrays, read_case
from maag.data.cases import Case
from maag.data.catalog import find_cases
from maag.data.geometry import labels_to_grid, prepare_image
from maag.data.volume import Volume
from maag.errors import DataError, StorageError
from maag.labels import BACKGROUND, IGNORE
from maag.storage import building_directory, read_json, require_writable_directory, storage_errors, write_json

FORMAT_VERSION = 1
_INDEX = "index.json"
_PROBLEMS_SHOWN = 10
# Settings that change the arrays; the others, of the split say, leave a prepared set valid.
_SETTINGS = (
    "dataset",
    "classes",
    "channels",
    "unlabelled_value",
    "spacing_mm",
    "size_px",
    "padding_label",
    "normalization",
)

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedCase:
    """Where a case's slices lie, and where they came from."""

    case_id: str
    patient_id: str
    frame: str
    start: int
    stop: int
    """Slices start to stop (exclusive) of the arrays."""
    source_shape: tuple[int, int, int]
    """(Z, Y, X)."""
    spacing_mm: tuple[float, float, float]
    """(z, y, x)."""
    affine: tuple[tuple[float, ...], ...]
    has_scribble: bool
    has_mask: bool
    scribbled_classes: tuple[int, ...]
    sha256: dict[str, str]
    """Of each source file, by role: image, scribble, mask."""


@dataclass(frozen=True, eq=False, slots=True)
class PreparedData:
    """All slices of a data set, S in number, memory-mapped."""

    directory: Path
    digest: str
    """Changes with any source file or setting that shapes the arrays."""
    images: NDArray[np.float32]
    """(S, C, H, W), normalised."""
    scribbles: NDArray[np.uint8]
    """(S, H, W), IGNORE where no stroke is."""
    masks: NDArray[np.uint8]
    """(S, H, W), IGNORE all over where a case has none."""
    cases: tuple[PreparedCase, ...]

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient ids, sorted."""
        return tuple(sorted({case.patient_id for case in self.cases}))

    def slices_of(
        self, patients: Collection[str], *, scribbled: bool = False, masked: bool = False
    ) -> NDArray[np.int64]:
        """Indices of the slices of `patients`, on request only of cases with a scribble, or with a mask."""
        wanted = [
            np.arange(case.start, case.stop)
            for case in self.cases
            if case.patient_id in set(patients)
            and (case.has_scribble or not scribbled)
            and (case.has_mask or not masked)
        ]
        return np.concatenate(wanted) if wanted else np.empty(0, dtype=np.int64)


def default_cache_root() -> Path:
    """Where prepared sets are kept: $MAAG_CACHE, else ~/.cache/maag."""
    given = os.environ.get("MAAG_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "maag"


def prepare(
    directory: Path,
    data: DataConfig,
    cache_root: Path,
    scribbles: Path | None = None,
    progress: Progress | None = None,
) -> PreparedData:
    """The prepared set of the data set in `directory`, built first if it is not there.

    It is built under another name and renamed when whole, so it is never left half made. Of several processes that
    start at once one builds and the others wait; where locks do not work each builds its own and the first one stays.

    Raises:
        MissingDataError: nothing of the data set is in `directory`.
        DataError: cases that would train wrongly, all of them in one error.
        StorageError: the cache cannot be written.
    """
    cases = find_cases(data.dataset, directory, scribbles)
    digest = _fingerprint(cases, directory, data)
    path = cache_root / f"{data.dataset}-{digest}"
    if not path.is_dir():
        require_writable_directory(cache_root)
        with FileLock(cache_root / f".{path.name}.lock"):
            if not path.is_dir():
                _build(path, cases, data, digest, progress)
    return _open(path)


def _fingerprint(cases: Collection[Case], directory: Path, data: DataConfig) -> str:
    sources = []
    for case in cases:
        for file in (case.image, case.scribble, case.mask):
            if file is not None:
                with storage_errors(file, "read"):
                    facts = file.stat()
                sources.append((os.path.relpath(file, directory), facts.st_size, facts.st_mtime_ns))
    settings = {name: getattr(data, name) for name in _SETTINGS}
    canonical = json.dumps([FORMAT_VERSION, settings, sources], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _build(path: Path, cases: Collection[Case], data: DataConfig, digest: str, progress: Progress | None) -> None:
    """Write one slice file per array as cases come in, so that memory holds one case at a time."""
    problems: list[str] = []
    prepared: list[PreparedCase] = []
    with building_directory(path) as folder:
        with (
            (folder / "images.raw").open("wb") as images,
            (folder / "scribbles.raw").open("wb") as scribbles,
            (folder / "masks.raw").open("wb") as masks,
        ):
            start = 0
            for done, case in enumerate(cases, start=1):
                try:
                    arrays = read_case(case, data)
                except (DataError, StorageError) as error:
                    problems.append(str(error))
                    continue
                on_grid = _on_grid(arrays, data)
                images.write(on_grid[0].tobytes())
                scribbles.write(on_grid[1].tobytes())
                masks.write(on_grid[2].tobytes())
                prepared.append(_index_entry(case, arrays, start))
                start = prepared[-1].stop
                if progress:
                    progress(done, len(cases))
        if problems:
            raise DataError(_all_problems(problems, len(cases)))
        index = {
            "format_version": FORMAT_VERSION,
            "digest": digest,
            "num_slices": start,
            "size_px": data.size_px,
            "channels": data.channels,
            "cases": [asdict(case) for case in prepared],
        }
        write_json(folder / _INDEX, index)


def _on_grid(arrays: CaseArrays, data: DataConfig) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
    images, grid = prepare_image(arrays.volume, data)
    padding = BACKGROUND if data.padding_label == "background" else IGNORE
    unknown = np.full((len(images), *data.size_px), IGNORE, dtype=np.uint8)
    scribble, mask = (
        unknown if labels is None else labels_to_grid(labels, grid, padding)
        for labels in (arrays.scribble, arrays.mask)
    )
    return images, scribble, mask


def _index_entry(case: Case, arrays: CaseArrays, start: int) -> PreparedCase:
    volume: Volume = arrays.volume
    depth, height, width = volume.voxels.shape
    files = {"image": case.image, "scribble": case.scribble, "mask": case.mask}
    classes = () if arrays.scribble is None else np.unique(arrays.scribble[arrays.scribble != IGNORE]).tolist()
    return PreparedCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        frame=case.frame,
        start=start,
        stop=start + depth,
        source_shape=(depth, height, width),
        spacing_mm=volume.spacing_mm,
        affine=tuple(tuple(row) for row in volume.affine.tolist()),
        has_scribble=case.scribble is not None,
        has_mask=case.mask is not None,
        scribbled_classes=tuple(classes),
        sha256={
            role: hashlib.sha256(file.read_bytes()).hexdigest() for role, file in files.items() if file is not None
        },
    )


def _open(path: Path) -> PreparedData:
    index: dict[str, Any] = read_json(path / _INDEX)
    if index["format_version"] != FORMAT_VERSION:
        raise StorageError(f"{path}: a prepared set of format {index['format_version']}; remove the folder")
    plane = tuple(index["size_px"])
    slices = index["num_slices"]
    cases = []
    for entry in index["cases"]:
        tuples = {name: tuple(entry[name]) for name in ("source_shape", "spacing_mm", "scribbled_classes")}
        cases.append(PreparedCase(**{**entry, **tuples, "affine": tuple(map(tuple, entry["affine"]))}))
    with storage_errors(path, "read"):
        return PreparedData(
            directory=path,
            digest=index["digest"],
            images=np.memmap(path / "images.raw", np.float32, "r", shape=(slices, index["channels"], *plane)),
            scribbles=np.memmap(path / "scribbles.raw", np.uint8, "r", shape=(slices, *plane)),
            masks=np.memmap(path / "masks.raw", np.uint8, "r", shape=(slices, *plane)),
            cases=tuple(cases),
        )


def _all_problems(problems: list[str], total: int) -> str:
    shown = problems[:_PROBLEMS_SHOWN]
    more = f"\n  … and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
    lines = "".join(f"\n  {problem}" for problem in shown)
    return f"{len(problems)} of {total} cases cannot be used; correct them or take them out of the folder:{lines}{more}"
