"""Measure a model, or predictions made elsewhere, against masks: at source resolution, in mm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maag.config.data import DataConfig
from maag.data.cases import Case
from maag.data.catalog import reader_of
from maag.data.folder_tree import files_below
from maag.data.geometry import Grid, labels_to_grid
from maag.data.label_files import geometry_of, load_label_file, stem_of, suffix_of
from maag.data.pictures import is_picture
from maag.data.volume import Volume
from maag.errors import DataError, MissingDataError, StorageError
from maag.evaluate.agreement import volume_pairs
from maag.evaluate.report import CaseScores, Report, Subject
from maag.expected_dice import corrected
from maag.inference import PLAIN, Refinement, Runner, segment_fully
from maag.labels import BACKGROUND
from maag.metrics import score_case

_NAMED_AT_MOST = 10

Labels = NDArray[np.uint8]
"""(Z, Y, X)."""


class Predicted(NamedTuple):
    """What is measured of a case."""

    labels: Labels
    expected_dice: Mapping[str, float] = MappingProxyType({})
    """What the model expects, by foreground class; empty of labels made elsewhere."""


Predictor = Callable[[Case, Volume], Predicted]
"""The prediction of a case, given its volume."""
Watcher = Callable[[CaseScores, Volume, Labels, Labels], None]
"""Is shown a case's scores, volume, prediction and reference."""


def evaluate(
    cases: Sequence[Case],
    predictor: Predictor,
    data: DataConfig,
    subject: Subject,
    progress: Callable[[int, int], None] | None = None,
    watch: Watcher | None = None,
    *,
    go_on: bool = False,
) -> Report:
    """Score every case that has a mask against it, at source resolution.

    Args:
        cases: those of the split; those without a mask are left out, and named in the report.
        predictor: what gives a case's labels.
        data: names the classes.
        subject: what is measured; goes into the report as it is.
        progress: called with (cases done, cases with a mask) after each.
        watch: sees each case as it is measured.
        go_on: leave out cases that cannot be read, and name them in the report, as long as there are others.

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
            if not go_on or len(masked) == 1:
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
    """The cases of `split` that can be measured, and those without a mask, which cannot.

    Raises:
        DataError: there is none to measure.
    """
    if not cases:
        raise DataError(f"split {split!r} holds no case to evaluate; choose another with --split")
    masked = tuple(case for case in cases if case.masks)
    without = tuple(case for case in cases if not case.masks)
    if not masked:
        raise DataError(
            f"none of the {len(cases)} cases of split {split!r} has a mask to measure against: "
            f"{_named([case.case_id for case in without])}; put masks beside the images, or choose another --split"
        )
    return masked, without


def runner_predictor(
    runner: Runner,
    data: DataConfig,
    refinement: Refinement = PLAIN,
    shortfalls: Mapping[str, float] = MappingProxyType({}),
) -> Predictor:
    """Predict with a model, and refine as said; `shortfalls` correct what it expects, see `maag.expected_dice`."""

    def predict(case: Case, volume: Volume) -> Predicted:
        found = segment_fully(volume, runner, data, refinement)
        return Predicted(found.labels, corrected(found.expected_dice, shortfalls))

    return predict


def file_predictor(files: Mapping[str, Path], data: DataConfig) -> Predictor:
    """Read predictions made elsewhere: by case a label file, as `prediction_files` finds them.

    Where a reader brings a picture to its mask's grid, labels of the picture's own size are brought there too.
    """
    values = range(data.num_classes)

    def predict(case: Case, volume: Volume) -> Predicted:
        return Predicted(of_volume(case, volume.shape))

    def of_volume(case: Case, shape: tuple[int, int, int]) -> Labels:
        path = files[case.case_id]
        labels = load_label_file(path, values)
        if len(case.images) != 1 or not is_picture(case.images[0]) or labels.shape == shape:
            return labels
        own, grid = geometry_of(case.images[0])[0][1:], shape[1:]
        if own == grid:
            return labels
        if labels.shape[1:] != own:
            raise DataError(
                f"case {case.case_id}: its prediction {path} has {_pixels(labels.shape[1:])} pixels, its picture "
                f"{case.images[0]} {_pixels(own)}, measured at {_pixels(grid)} (rows x columns); save it in one of "
                "these two sizes"
            )
        return labels_to_grid(labels, Grid(own, grid, grid), BACKGROUND)

    return predict


def prediction_files(directory: Path, cases: Sequence[Case], data_set: Sequence[Case] | None = None) -> dict[str, Path]:
    """By case the prediction that was made elsewhere, anywhere below `directory`.

    The prediction of a case is the file `CASEID`, `CASEID_pred`, or named as its image, or as the folder of its
    series if that has no other case: NIfTI, or a picture. Where images of several cases have one name, such as
    `101/0001.jpg` and `102/0001.jpg`, as many of their folders belong to it as tell them apart.

    Args:
        directory: where the predictions are.
        cases: whose are wanted.
        data_set: all cases, among which names of images are told apart; None: `cases`.

    Raises:
        MissingDataError: there is no such folder.
        DataError: a case has no prediction, or more than one.
    """
    if not directory.is_dir():
        raise MissingDataError(f"{directory}: there is no such folder of predictions")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(files_below(directory)):
        # A link to what is not there is a prediction that cannot be read, and not none.
        if suffix_of(path) and (path.is_file() or path.is_symlink()):
            found[stem_of(path)].append(path)
    images: dict[str, list[Path]] = defaultdict(list)
    for case in data_set or cases:
        if place := _place(case):
            images[stem_of(place)].append(place)
    files = {}
    absent = []
    for case in cases:
        paths = {path for stem in (case.case_id, f"{case.case_id}_pred") for path in found[stem]}
        place = _place(case)
        if place and (name := _telling_name(place, images)):
            paths |= {path for path in found[name[-1]] if _tail(path.relative_to(directory), len(name)) == name}
        if len(paths) > 1:
            one, other, *_ = sorted(paths)
            raise DataError(f"case {case.case_id} has two predictions, {one} and {other}; remove one of them")
        if paths:
            files[case.case_id] = paths.pop()
        else:
            absent.append(case)
    if absent:
        raise DataError(
            f"{directory} has no prediction for {len(absent)} of {len(cases)} cases: "
            f"{_named([case.case_id for case in absent])}; {_way_out(absent[0], images)}"
        )
    return files


def _way_out(case: Case, images: Mapping[str, Sequence[Path]]) -> str:
    """What a case without a prediction needs."""
    names, place = [case.case_id], _place(case)
    if place and place != case.images[0] and (name := _telling_name(place, images)):
        names.append("/".join(name))
    files = " or ".join(f"{name}.nii.gz" for name in names)
    return f"each needs a file such as {files}, anywhere below the folder"


def _place(case: Case) -> Path | None:
    """After what `maag predict` calls a case's labels: its one image file, or the folder of its DICOM series."""
    folder = case.images[0].parent
    if not suffix_of(case.images[0]):
        return folder if all(image.parent == folder for image in case.images) else None
    return case.images[0] if len(case.images) == 1 else None


def _telling_name(image: Path, images: Mapping[str, Sequence[Path]]) -> tuple[str, ...] | None:
    """The shortest end of the path of `image` that no other of the `images`, by stem, has; None where one has all."""
    namesakes = images[stem_of(image)]
    for length in range(1, len(image.parts) + 1):
        name = _tail(image, length)
        if sum(_tail(other, length) == name for other in namesakes) == 1:
            return name
    return None


def _tail(path: Path, length: int) -> tuple[str, ...]:
    """At most `length` last parts of a path without its suffix."""
    return (*path.parts[:-1], stem_of(path))[-length:]


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
                "they must be equal, so bring it to the grid of the image"
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


def _pixels(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more
