"""Sources of scribbles: the data set's own, a rater's folder, or simulated from the masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from maag.data.cases import Case, ScribbleFile, SimulatedScribble
from maag.data.files.folder_tree import files_below
from maag.data.files.label_files import stem_of, suffix_of
from maag.data.scribbles.styles import STYLES
from maag.errors import ConfigError, DataError, MissingDataError

OWN = "own"
"""The scribbles in the data set's own layout."""
_SIMULATED = "simulated"


def attach_scribbles(cases: Sequence[Case], sources: Sequence[str], seed: int) -> tuple[Case, ...]:
    """Give each case the scribbles of all `sources`; each folder and each simulation is a rater.

    A source is `own`, `simulated:STYLE`, `simulated:STYLE:RATIO`, or a folder of files named CASE_scribble or CASE, at
    any depth: NIfTI, or a picture for a single slice.

    Raises:
        ConfigError: a source is none of these, or two have a rater of one name.
        MissingDataError: a folder is missing, or has no scribble of any case.
        DataError: one folder has two scribbles of one case.
    """
    if tuple(sources) == (OWN,):
        return tuple(cases)
    bare = [replace(case, scribbles=()) for case in cases]
    for index, source in enumerate(sources):
        if source == OWN:
            found = {case.case_id: case.scribbles for case in cases}
        elif source.partition(":")[0] == _SIMULATED:
            simulated = _simulated(source, seed)
            found = {case.case_id: (simulated,) for case in cases if case.masks}
        else:
            found = {case_id: (file,) for case_id, file in _files(Path(source), cases).items()}
        indexed = {case_id: tuple(replace(each, source=index) for each in drawn) for case_id, drawn in found.items()}
        bare = [replace(case, scribbles=case.scribbles + indexed.get(case.case_id, ())) for case in bare]
    _require_own_raters(bare, sources)
    return tuple(bare)


def _require_own_raters(cases: Sequence[Case], sources: Sequence[str]) -> None:
    """Raise ConfigError where two sources have a rater of one name, who would agree with themselves in every case."""
    source_of: dict[str, int] = {}
    for case in cases:
        for scribble in case.scribbles:
            other = source_of.setdefault(scribble.rater, scribble.source)
            if other != scribble.source:
                raise ConfigError(
                    f"--scribbles {sources[other]} and {sources[scribble.source]} both have a rater {scribble.rater}; "
                    "folders must have different names, and each source may be given once: rename one, or put the "
                    "files of one rater into one folder"
                )


def _simulated(source: str, seed: int) -> SimulatedScribble:
    style, *rest = source.split(":")[1:] or [""]
    try:
        ratio = float(rest[0]) if rest else 1.0
    except ValueError:
        ratio = 0.0
    if style not in STYLES or len(rest) > 1 or not 0 < ratio <= 1:
        raise ConfigError(
            f"--scribbles {source}: expected simulated:STYLE or simulated:STYLE:RATIO with STYLE one of "
            f"{', '.join(STYLES)} and RATIO in (0, 1]"
        )
    return SimulatedScribble(rater=source, style=style, ratio=ratio, seed=seed)


def _files(folder: Path, cases: Sequence[Case]) -> dict[str, ScribbleFile]:
    if not folder.is_dir():
        raise MissingDataError(
            f"--scribbles {folder}: no such folder; give a folder of scribble files, or simulated:STYLE to simulate "
            "them from the masks"
        )
    known = {case.case_id for case in cases}
    files: dict[str, ScribbleFile] = {}
    for path in sorted(files_below(folder)):
        case_id = _case_of(path)
        if case_id not in known:
            continue
        if case_id in files:
            raise DataError(f"case {case_id} has two scribbles, {files[case_id].path} and {path}; remove one of them")
        files[case_id] = ScribbleFile(rater=Path(os.path.abspath(folder)).name, path=path)
    if not files:
        raise MissingDataError(
            f"--scribbles {folder}: it has no scribble of any of the {len(known)} cases; files must be named after "
            f"their case, such as {min(known)}_scribble.nii.gz"
        )
    return files


def _case_of(path: Path) -> str | None:
    return stem_of(path).removesuffix("_scribble") if suffix_of(path) else None
