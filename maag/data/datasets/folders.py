"""Your own data: `images/`, `scribbles/`, and optionally `masks/`, `unlabelled/`, `cases.csv`, `classes.txt`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from maag.config.data import DataConfig
from maag.data.cases import Case, Mask, Part, ReaderDefaults, ScribbleFile, patient_and_frame
from maag.data.datasets.grid_choice import choose_grid, count_channels
from maag.data.files.label_files import LABEL_ENDINGS, load_image, load_label_file, stem_of, suffix_of
from maag.data.files.text_files import read_lines, read_table
from maag.data.files.volume import Volume
from maag.errors import DataError

_COLUMNS = ("case", "patient", "split", "supervision", "rater")
_SUPERVISIONS = ("scribbles", "masks", "unlabelled")
_ONE_RATER = "scribbles"


@dataclass(slots=True)
class _Row:
    """The entries of cases.csv for one case."""

    patient: str | None = None
    part: Part | None = None
    supervision: str | None = None
    raters: set[str] = field(default_factory=set)


class FoldersReader(ReaderDefaults):
    """Files are matched by name: `images/a.nii.gz`, `scribbles/a.nii.gz` or `a_scribble.nii.gz`, `masks/a.nii.gz`.

    Scribbles of several raters are in `scribbles/RATER/a.nii.gz`. Each case is a patient, except that X_frame01 and
    X_frame12 are two volumes of one, unless `cases.csv` (columns case, patient, split, supervision, rater; all but the
    first optional) says otherwise.
    """

    layout = "images/a.nii.gz (or .png, .tif), scribbles/a.nii.gz, and optionally masks/, unlabelled/, cases.csv"
    defaults: Mapping[str, Any] = {
        "data.classes": ["background", "foreground"],
        "data.unlabelled_value": None,
    }

    def settings(self, directory: Path) -> Mapping[str, Any]:
        """Channels and grid from the images, classes from `classes.txt`, one per line.

        Raises DataError where the first class is not background.
        """
        images = list(_files(directory / "images").values())
        if not images:
            return {}
        found: dict[str, Any] = {"data.channels": count_channels(images)}
        names = directory / "classes.txt"
        if names.is_file():
            found["data.classes"] = _class_names(names)
        return {**found, **choose_grid(images)}

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """See Reader."""
        images, unlabelled = _files(directory / "images"), _files(directory / "unlabelled")
        both = sorted(set(images) & set(unlabelled))
        if both:
            raise DataError(f"{directory}: {both[0]} is in images/ and in unlabelled/; keep one of them")
        if not images:
            return ()
        scribbles = _rater_folders(directory / "scribbles", images)
        masks = _files(directory / "masks", labels_of=images)
        rows = _read_rows(directory / "cases.csv", {*images, *unlabelled})
        cases = [
            _case(name, image, masks.get(name), scribbles.get(name, ()), rows.get(name, _Row()))
            for name, image in images.items()
        ]
        cases += [_case(name, image, None, (), rows.get(name, _Row())) for name, image in unlabelled.items()]
        return tuple(sorted(cases, key=lambda case: case.case_id))

    def load_volume(self, case: Case) -> Volume:
        """See Reader."""
        return load_image(case.images)

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """See Reader."""
        return Mask(load_label_file(case.masks[0], range(data.num_classes)))

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """See Reader."""
        from maag.data.phantoms.plain import write_folders

        write_folders(out, num_cases, seed)


def _class_names(path: Path) -> list[str]:
    names = [line.strip() for line in read_lines(path) if line.strip()]
    if not names or names[0].lower() != "background":
        # Without background each structure would get the number before its own, and the first one the background's.
        raise DataError(
            f"{path}: the first class is {names[0] if names else 'missing'}; the first line must be background, "
            "which is 0, followed by one class per line"
        )
    return names


def _case(name: str, image: Path, mask: Path | None, scribbles: tuple[ScribbleFile, ...], row: _Row) -> Case:
    absent = row.raters - {item.rater for item in scribbles}
    if absent and row.supervision in (None, "scribbles"):
        others = f"only by {', '.join(item.rater for item in scribbles)}" if scribbles else "nor by any other"
        raise DataError(
            f"cases.csv: case {name} has no scribble by rater {min(absent)}, {others}; a rater is the name of a folder "
            "in scribbles/: move the files there, or leave the column empty"
        )
    case = Case(
        case_id=name,
        patient_id=row.patient or patient_and_frame(name)[0],
        frame=name,
        images=(image,),
        masks=(mask,) if mask else (),
        scribbles=tuple(item for item in scribbles if not row.raters or item.rater in row.raters),
        part=row.part,
    )
    if row.supervision in ("masks", "unlabelled"):
        case = replace(case, scribbles=())
    if row.supervision in ("scribbles", "unlabelled") and row.part in (None, "train"):
        case = replace(case, masks=())
    return case


def _files(folder: Path, labels_of: Mapping[str, Path] | None = None) -> dict[str, Path]:
    """Files by stem; label files, with `labels_of`, by the stem of their image."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if suffix_of(path) is None:
            continue
        stem = stem_of(path) if labels_of is None else _owner(path, labels_of)
        if stem in found:
            raise DataError(
                f"{path}: has the same name as {found[stem]}; each case needs a name of its own: rename one"
            )
        found[stem] = path
    return found


def _owner(label: Path, images: Mapping[str, Path]) -> str:
    stem = stem_of(label)
    candidates = [stem, *(stem.removesuffix(ending) for ending in LABEL_ENDINGS if stem.endswith(ending))]
    owner = next((name for name in candidates if name in images), None)
    if owner is None:
        raise DataError(f"{label}: there is no image {stem} in images/; name it like its image, or remove it")
    return owner


def _rater_folders(folder: Path, images: Mapping[str, Path]) -> dict[str, tuple[ScribbleFile, ...]]:
    """Scribbles by case, in `folder` itself and in a folder for each rater."""
    by_case: dict[str, list[ScribbleFile]] = defaultdict(list)
    subfolders = [path for path in sorted(folder.glob("*")) if path.is_dir() and not path.name.startswith((".", "__"))]
    for rater, place in [(_ONE_RATER, folder), *((path.name, path) for path in subfolders)]:
        for name, path in _files(place, labels_of=images).items():
            by_case[name].append(ScribbleFile(rater=rater, path=path))
    return {name: tuple(files) for name, files in by_case.items()}


def _read_rows(path: Path, known: set[str]) -> dict[str, _Row]:
    if not path.is_file():
        return {}
    columns, lines = read_table(path)
    if "case" not in columns or not set(columns) <= set(_COLUMNS):
        raise DataError(f"{path}: columns {', '.join(columns)}; expected case, and any of {', '.join(_COLUMNS[1:])}")
    rows: dict[str, _Row] = {}
    for number, line in lines:
        name, part, supervision = line["case"], line.get("split") or None, line.get("supervision") or None
        where = f"{path}, line {number}"
        if name not in known:
            raise DataError(f"{where}: case {name!r} has no image in images/ or unlabelled/; correct the name")
        if part not in (None, *get_args(Part)):
            raise DataError(f"{where}: split {part!r}; it must be one of {', '.join(get_args(Part))} or empty")
        if supervision not in (None, *_SUPERVISIONS):
            raise DataError(
                f"{where}: supervision {supervision!r}; it must be one of {', '.join(_SUPERVISIONS)} or empty"
            )
        row = rows.setdefault(name, _Row())
        patient = line.get("patient") or None
        entries = (
            ("patient", row.patient, patient),
            ("split", row.part, part),
            ("supervision", row.supervision, supervision),
        )
        for what, before, now in entries:
            if before and now and before != now:
                raise DataError(
                    f"{where}: {what} of case {name} is {now}, but {before} in an earlier line; a case has one {what}"
                )
        row.patient = row.patient or patient
        row.part = row.part or cast("Part | None", part)
        row.supervision = row.supervision or supervision
        if line.get("rater"):
            row.raters.add(line["rater"])
    return rows
