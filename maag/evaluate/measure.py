"""Evaluate a model, or existing predictions, against masks: at source resolution, in mm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cases import Case
from maag.data.catalog import reader_of
from maag.data.files.pictures import is_picture
from maag.data.files.volume import Volume
from maag.errors import DataError, StorageError, names_of
from maag.evaluate.agreement import volume_pairs
from maag.evaluate.report import CaseScores, Report, Subject
from maag.expected_dice import corrected
from maag.inference import PLAIN, Refinement, Runner, segment_fully
from maag.metrics import score_case

Labels = NDArray[np.uint8]
"""(Z, Y, X)."""


class Predicted(NamedTuple):
    """The prediction of a case."""

    labels: Labels
    expected_dice: Mapping[str, float] = MappingProxyType({})
    """By foreground class; empty for existing predictions."""


Predictor = Callable[[Case, Volume], Predicted]
"""Predicts a case, given its volume."""
Watcher = Callable[[CaseScores, Volume, Labels, Labels], None]
"""Receives a case's scores, volume, prediction and reference."""


def evaluate(
    cases: Sequence[Case],
    predictor: Predictor,
    data: DataConfig,
    subject: Subject,
    progress: Callable[[int, int], None] | None = None,
    watch: Watcher | None = None,
    *,
    skip_unreadable: bool = False,
) -> Report:
    """Score every case that has a mask, at source resolution.

    Args:
        cases: of the split; cases without a mask are left out, and listed in the report.
        predictor: predicts the labels of a case.
        data: names the classes.
        subject: what is evaluated; copied to the report.
        progress: called with (cases done, cases with a mask) after each.
        watch: called with each case after it is scored.
        skip_unreadable: leave out cases that cannot be read, and list them in the report, as long as there are others.

    Raises:
        DataError: no case, none with a mask, or one that cannot be read.
        StorageError: a file cannot be opened.
    """
    masked, without = by_mask(cases, subject.split)
    scored = []
    failed: dict[str, str] = {}
    for done, case in enumerate(masked, start=1):
        try:
            scored.append(_score(case, predictor, data, watch))
        except (DataError, StorageError) as error:
            if not skip_unreadable or len(masked) == 1:
                raise
            failed[case.case_id] = str(error)
        if progress:
            progress(done, len(masked))
    if not scored:
        raise DataError(
            f"none of the {len(masked)} cases of split {subject.split!r} could be measured; the first: "
            f"{next(iter(failed.values()))}"
        )
    return Report(
        subject=subject,
        cases=tuple(scored),
        without_mask=tuple(case.case_id for case in without),
        failed=failed,
    )


def by_mask(cases: Sequence[Case], split: str) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """The cases of `split` with a mask, and those without.

    Raises:
        DataError: no case has a mask.
    """
    if not cases:
        raise DataError(f"split {split!r} holds no case to evaluate; choose another with --split")
    masked = tuple(case for case in cases if case.masks)
    without = tuple(case for case in cases if not case.masks)
    if not masked:
        raise DataError(
            f"none of the {len(cases)} cases of split {split!r} has a mask to measure against: "
            f"{names_of([case.case_id for case in without])}; add masks beside the images, or choose another --split"
        )
    return masked, without


def runner_predictor(
    runner: Runner,
    data: DataConfig,
    refinement: Refinement = PLAIN,
    shortfalls: Mapping[str, float] = MappingProxyType({}),
) -> Predictor:
    """Predict with a model and `refinement`; `shortfalls` correct its expected Dice, see `maag.expected_dice`."""

    def predict(case: Case, volume: Volume) -> Predicted:
        found = segment_fully(volume, runner, data, refinement)
        return Predicted(found.labels, corrected(found.expected_dice, shortfalls))

    return predict


def _score(case: Case, predictor: Predictor, data: DataConfig, watch: Watcher | None) -> CaseScores:
    reader = reader_of(data.dataset)
    volume = reader.load_volume(case)
    reference = reader.load_mask(case, data).labels
    predicted = predictor(case, volume)
    prediction = predicted.labels
    shape = volume.shape
    for what, labels in ((f"the mask {case.masks[0]}", reference), ("its prediction", prediction)):
        if labels.shape != shape:
            raise DataError(
                f"case {case.case_id}: {what} has shape {labels.shape} and the image {shape} (slices, rows, columns); "
                "they must be equal, so resample it to the grid of the image"
            )
    scores = score_case(prediction, reference, volume.spacing_mm, data.classes)
    volumes = {} if is_picture(case.images[0]) else volume_pairs(prediction, reference, volume.spacing_mm, data.classes)
    scored = CaseScores(
        case_id=case.case_id,
        patient_id=case.patient_id,
        frame=case.frame,
        scores=scores,
        volumes_ml=volumes,
        expected_dice=dict(predicted.expected_dice),
    )
    if watch:
        watch(scored, volume, prediction, reference)
    return scored
