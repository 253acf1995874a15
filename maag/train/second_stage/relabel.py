"""Denser labels for a second stage: a trained model's confident predictions, overlaid with the scribbles.

Train on scribbles, label the pixels of which the model is confident, and train again on these labels. The second stage
of DMSPS (Han et al., Medical Image Analysis 2024) likewise trains on the first stage's labels of low uncertainty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cache.case_arrays import CaseArrays, read_case
from maag.data.cache.preparing import Progress
from maag.data.cases import Case
from maag.data.catalog import reader_of
from maag.data.files.nifti_writing import save_volume
from maag.data.scribbles.raters import combine, measure_agreement, rater_weights
from maag.data.splits import Split
from maag.errors import DataError, StorageError
from maag.inference import Runner
from maag.labels import BACKGROUND, IGNORE
from maag.storage import building_directory, require_empty_directory, write_json
from maag.train.second_stage.coverage import Coverage, CoverageTally
from maag.train.second_stage.sure_labels import label_volume
from maag.train.second_stage.training_cases import TrainingCases

FORMAT_VERSION = 1
REPORT = "relabelling.json"
SPLIT = "split.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Labeller:
    """The model that labels, and its confidence threshold."""

    model: str
    """Path of a run or a checkpoint."""
    model_digest: str
    entropy: float
    """In (0, 1]: pixels with a lower normalised entropy are labelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCoverage:
    """One class before and after."""

    name: str
    drawn: Coverage
    """Of the scribbles."""
    labelled: Coverage
    """Of the scribbles and the model's labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RelabelReport:
    """What `relabel` wrote. Masks, if there are any, are used for this report alone."""

    labeller: Labeller
    split_digest: str
    """Of the second stage's split."""
    unlabelled_value: int
    num_patients: int
    num_cases: int
    num_cases_with_mask: int
    classes: tuple[ClassCoverage, ...]
    failed: dict[str, str]
    """Error message by name of each case that could not be read; patients without another case are not in the split."""

    def to_dict(self) -> dict[str, Any]:
        """The content of `relabelling.json`."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}


def relabel(
    training: TrainingCases,
    runner: Runner,
    data: DataConfig,
    labeller: Labeller,
    out: Path,
    progress: Progress | None = None,
) -> RelabelReport:
    """Write labels of the readable training cases to the new folder `out`, all or nothing.

    The folder can be given to `--scribbles`. It has CASE_scribble.nii.gz on each image's own grid, with unlabelled
    pixels set to `data.unlabelled_value` or, if that is null, to the number of classes; the second stage's split.json;
    and the report as relabelling.json.

    Args:
        training: see `maag.train.second_stage.training_cases`.
        runner: the trained model.
        data: the settings of its training.
        labeller: the model's name and its confidence threshold.
        out: a folder that does not exist or is empty.
        progress: called with (cases done, cases in all) after each.

    Raises:
        DataError: no case can be read, or a case has no pixel labelled as background.
        StorageError: `out` is not empty, or cannot be written.
    """
    require_empty_directory(out)
    unlabelled_value = data.num_classes if data.unlabelled_value is None else data.unlabelled_value
    weights = _weights_of_raters(training, data)
    drawn_tally, labelled_tally = CoverageTally(data.num_classes), CoverageTally(data.num_classes)
    labelled: list[Case] = []
    failed: dict[str, str] = {}
    with building_directory(out) as folder:
        for case, arrays in _readable(training.cases, data, failed, progress):
            drawn = drawn_by_hand(arrays, training.raters, data, weights)
            labels = label_volume(arrays.volume, drawn, runner, data, labeller.entropy)
            _require_background(labels, case, labeller.entropy)
            written = np.where(labels == IGNORE, np.uint8(unlabelled_value), labels)
            save_volume(folder / f"{case.case_id}_scribble.nii.gz", written, arrays.volume.affine)
            drawn_tally.add(drawn, arrays.mask)
            labelled_tally.add(labels, arrays.mask)
            labelled.append(case)
        split = _without_lost(training, labelled)
        report = RelabelReport(
            labeller=labeller,
            split_digest=split.digest,
            unlabelled_value=unlabelled_value,
            num_patients=len({case.patient_id for case in labelled}),
            num_cases=len(labelled),
            num_cases_with_mask=sum(bool(case.masks) for case in labelled),
            classes=tuple(
                ClassCoverage(name=name, drawn=drawn_tally.of(value), labelled=labelled_tally.of(value))
                for value, name in enumerate(data.classes)
            ),
            failed=failed,
        )
        write_json(folder / SPLIT, split.to_dict())
        write_json(folder / REPORT, report.to_dict())
    return report


def _readable(
    cases: Sequence[Case], data: DataConfig, failed: dict[str, str], progress: Progress | None = None
) -> Iterator[tuple[Case, CaseArrays]]:
    """The readable `cases` and their arrays; the error messages of the others are added to `failed`.

    Raises DataError if no case can be read.
    """
    reader = reader_of(data.dataset)
    for done, case in enumerate(cases, start=1):
        try:
            arrays = read_case(case, reader, data)
        except (DataError, StorageError) as error:
            failed[case.case_id] = str(error)
        else:
            yield case, arrays
        if progress:
            progress(done, len(cases))
    if len(failed) == len(cases):
        raise DataError(f"none of the {len(failed)} cases can be read; the first: {next(iter(failed.values()))}")


def _without_lost(training: TrainingCases, labelled: Sequence[Case]) -> Split:
    """The split without patients none of whose cases could be read."""
    split, kept = training.split, {case.patient_id for case in labelled}
    lost = {case.patient_id for case in training.cases} - kept
    return replace(split, scribbled=tuple(patient for patient in split.scribbled if patient not in lost))


def drawn_by_hand(
    arrays: CaseArrays, raters: Sequence[str], data: DataConfig, weights: Sequence[float] = ()
) -> NDArray[np.uint8]:
    """(Z, Y, X) uint8: the raters' scribbles combined by `data.raters`, IGNORE where no label wins.

    `weights` has one weight for each of the `raters`, if they are weighted.
    """
    if len(raters) == 1:
        return _votes(arrays, raters)[:, 0]
    return combine(_votes(arrays, raters), data.num_classes, data.raters, weights)[0]


def _votes(arrays: CaseArrays, raters: Sequence[str]) -> NDArray[np.uint8]:
    """(Z, R, Y, X) uint8 scribbles of R raters."""
    nothing = np.full(arrays.volume.shape, IGNORE, np.uint8)
    return np.stack([arrays.scribbles.get(rater, nothing) for rater in raters], axis=1)


def _weights_of_raters(training: TrainingCases, data: DataConfig) -> tuple[float, ...]:
    """The raters' weights, as in training, but with agreement measured on the images' own grids."""
    if data.raters != "weighted" or len(training.raters) == 1:
        return ()
    scribbled = [case for case in training.cases if case.scribbles]
    parts = (_votes(arrays, training.raters) for _, arrays in _readable(scribbled, data, {}))
    return rater_weights(measure_agreement(parts, training.raters, data.num_classes), data.rater_weights)


def _require_background(labels: NDArray[np.uint8], case: Case, entropy: float) -> None:
    """Training refuses a case without a background label; cases with scribbles have one."""
    if not (labels == BACKGROUND).any():
        raise DataError(
            f"case {case.case_id}: the model is nowhere sure of background (--entropy {entropy:g}), so the case cannot "
            "be used for training; raise --entropy, or leave out --with-unlabelled"
        )
