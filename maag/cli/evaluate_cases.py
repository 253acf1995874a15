"""Select the cases that `maag evaluate` measures, by split and by mask, and find their label files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from maag.cli.models import OpenModel, read_own_split
from maag.errors import ConfigError, DataError, StorageError, names_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from maag.config.data import DataConfig
    from maag.data.cases import Case
    from maag.data.splits import Split

WHOLE = "all"
"""Value of `--split` for all patients of the data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Cases of a data set."""

    split: Split | None
    """The split that the patients were chosen by; None for all patients."""
    found: Sequence[Case]
    """All cases of the data set."""
    wanted: Sequence[Case]
    """Cases of the chosen patients."""
    cases: Sequence[Case]
    """Those of `wanted` with a mask."""


def choose_cases(
    directory: Path, data: DataConfig, part: str, opened: OpenModel | None, split_file: Path | None
) -> Chosen:
    """The cases of a `part` of the split in `split_file`, or of the model's own; cases without a mask are reported.

    Raises:
        ConfigError: there is no split, or the model was trained on another one.
        DataError: patients of the split are not in the data, or no case has a mask.
    """
    from maag.cli.terminal import say
    from maag.data.catalog import find_cases
    from maag.evaluate.measure import by_mask

    split = _split(opened, split_file, part)
    patients = None if part == WHOLE or split is None else frozenset[str](getattr(split, part))
    # Frames of a cine have no masks, even if the model was trained on them.
    found = find_cases(replace(data, cine=False), directory)
    _require_patients(patients, found, part, directory)
    wanted = [case for case in found if _is_wanted(case.patient_id, patients)]
    cases, without = by_mask(wanted, part)
    if without:
        say(
            f"Note: {len(without)} of {len(wanted)} cases of split {part!r} have no mask and are left out, the first "
            f"is {without[0].case_id}"
        )
    return Chosen(split=split, found=found, wanted=wanted, cases=cases)


def warn_of_orientations(cases: Sequence[Case], opened: OpenModel) -> None:
    """Say where images are oriented differently from the training images: the model is measured on them as stored."""
    from maag.cli.terminal import say
    from maag.data.files.header_agreement import differing_orientations, header_orientation

    orientations: dict[str, str | None] = {}
    for case in cases:
        with suppress(DataError, StorageError):  # reported when the case is measured
            orientations[case.case_id] = header_orientation(case.images)
    if sentence := differing_orientations(orientations, opened.orientations):
        say(f"Note: {sentence}; measure what `maag predict --reorient` makes of them with --predictions")


def find_label_files(folder: Path, chosen: Chosen) -> dict[str, Path]:
    """The label file of each case below `folder`; files whose position differs from the image's are reported.

    Raises:
        MissingDataError: there is no such folder.
        DataError: a case has no label file, or several.
    """
    from maag.cli.terminal import say
    from maag.data.files.header_agreement import header_differences
    from maag.data.notes import merged_notes
    from maag.evaluate.prediction_files import prediction_files

    files = prediction_files(folder, chosen.cases, chosen.found)
    notes: list[tuple[str, str]] = []
    for case in chosen.cases:
        with suppress(DataError, StorageError):  # reported when the case is measured
            notes += [
                (case.case_id, note) for note in header_differences(files[case.case_id], case.images[0], origins=True)
            ]
    for sentence in merged_notes(notes):
        say(f"Note: {sentence}")
    return files


def _split(opened: OpenModel | None, split_file: Path | None, part: str) -> Split | None:
    """The split to choose patients by; None for all patients."""
    if part == WHOLE:
        return None
    if opened and len(opened.split_digests) > 1 and not (part == "test" and opened.share_test_patients):
        raise ConfigError(
            f"--split {part}: this model averages networks that were trained on {len(opened.split_digests)} splits, so "
            f"the {part} patients of one may have trained another; evaluate the runs themselves together"
            + (", or use --split test" if opened.share_test_patients else "")
        )
    path = split_file or (opened.split_file if opened else None)
    if path is None:
        raise ConfigError(
            f"--split {part}: there is no split.json next to this model; give its run's with --split-file, or evaluate "
            "all patients, including those it was trained on, with --split all"
        )
    return read_own_split(opened, path, ", or use --split all")


def _require_patients(patients: frozenset[str] | None, cases: Collection[Case], part: str, directory: Path) -> None:
    absent = sorted((patients or frozenset()) - {case.patient_id for case in cases})
    if absent:
        raise DataError(
            f"{directory}: {len(absent)} of {len(patients or ())} patients of split {part!r} are missing: "
            f"{names_of(absent)}; give the data that the split was made from, or another --split"
        )


def _is_wanted(patient: str, patients: Collection[str] | None) -> bool:
    return patients is None or patient in patients
