"""Where scribbles come from: beside the images, a rater's folder, or drawn from the masks."""

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
"""The scribbles that the data set's own layout holds."""
_SIMULATED = "simulated"


def attach_scribbles(cases: Sequence[Case], sources: Sequence[str], seed: int) -> tuple[Case, ...]:
    """Give each case the scribbles of all `sources`, each of which is a rater of its own.

    A source is `own`, `simulated:STYLE` or `simulated:STYLE:RATIO`, or a folder with files named CASE_scribble or
    CASE, NIfTI or for one slice a picture, at any depth.

    Raises:
        ConfigError: a source that is none of these, or two of one name.
        MissingDataError: a folder that is not there, or that holds no scribble of any case.
        DataError: two scribbles of one rater for one case.
    """
    if tuple(sources) == (OWN,):
        return tuple(cases)
    bare = [replace(case, scribbles=()) for case in cases]
    for place, source in enumerate(sources):
        if source == OWN:
            found = {case.case_id: case.scribbles for case in cases}
        elif source.partition(":")[0] == _SIMULATED:
            simulated = _simulated(source, seed)
            found = {case.case_id: (simulated,) for case in cases if case.masks}
        else:
            found = {case_id: (file,) for case_id, file in _files(Path(source), cases).items()}
        placed = {case_id: tuple(replace(each, source=place) for each in drawn) for case_id, drawn in found.items()}
        bare = [replace(case, scribbles=case.scribbles + placed.get(case.case_id, ())) for case in bare]
    for case in bare:
        raters = [scribble.rater for scribble in case.scribbles]
        if len(set(raters)) < len(raters):
            raise ConfigError(
                f"--scribbles: case {case.case_id} has two scribbles of one rater ({', '.join(raters)}); folders must "
                "have different names, and a source may be given once"
            )
    return tuple(bare)


def _simulated(source: str, seed: int) -> SimulatedScribble:
    style, *rest = source.split(":")[1:] or [""]
    try:
        ratio = float(rest[0]) if rest else 1.0
    except ValueError:
        ratio = 0.0
    if style not in STYLES or len(rest) > 1 or not 0 < ratio <= 1:
        raise ConfigError(
            f"--scribbles {source}: expected simulated:STYLE or simulated:STYLE:RATIO with a style of "
            f"{', '.join(STYLES)} and a ratio in (0, 1]"
        )
    return SimulatedScribble(rater=source, style=style, ratio=ratio, seed=seed)


def _files(folder: Path, cases: Sequence[Case]) -> dict[str, ScribbleFile]:
    if not folder.is_dir():
        raise MissingDataError(
            f"--scribbles {folder}: no such folder; give a folder of scribble files, or simulated:STYLE to draw them "
            "from the masks"
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
            f"--scribbles {folder}: none of the {len(known)} cases has a scribble in it; files must be named as their "
            f"case, such as {min(known)}_scribble.nii.gz"
        )
    return files


def _case_of(path: Path) -> str | None:
    return stem_of(path).removesuffix("_scribble") if suffix_of(path) else None
