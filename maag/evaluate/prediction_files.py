"""Existing prediction files: matching them to cases, and reading their labels on the grid of the image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from maag.config.data import DataConfig
from maag.data.cases import Case
from maag.data.files.folder_tree import files_below
from maag.data.files.label_files import geometry_of, load_label_file, stem_of, suffix_of
from maag.data.files.pictures import is_picture
from maag.data.files.volume import Volume
from maag.data.geometry import Grid, labels_to_grid
from maag.errors import DataError, MissingDataError, names_of
from maag.evaluate.measure import Labels, Predicted, Predictor
from maag.labels import BACKGROUND


def prediction_files(directory: Path, cases: Sequence[Case], data_set: Sequence[Case] | None = None) -> dict[str, Path]:
    """The prediction file of each case, anywhere below `directory`.

    The prediction of a case is a NIfTI file or picture called `CASEID`, `CASEID_pred`, or like its image, or like the
    folder of its series if that has no other case. If images of several cases have the same name, such as
    `101/0001.jpg` and `102/0001.jpg`, the name includes as many parent folders as make it unique.

    Args:
        directory: where the predictions are.
        cases: cases that need a prediction.
        data_set: all cases, among which image names must be unique; None: `cases`.

    Raises:
        MissingDataError: there is no such folder.
        DataError: a case has no prediction, or more than one.
    """
    if not directory.is_dir():
        raise MissingDataError(f"{directory}: there is no such folder of predictions")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(files_below(directory)):
        # A broken link is an unreadable prediction, not a missing one.
        if suffix_of(path) and (path.is_file() or path.is_symlink()):
            found[stem_of(path)].append(path)
    images: dict[str, list[Path]] = defaultdict(list)
    for case in data_set or cases:
        if place := _named_after(case):
            images[stem_of(place)].append(place)
    files = {}
    absent = []
    for case in cases:
        paths = {path for stem in (case.case_id, f"{case.case_id}_pred") for path in found[stem]}
        place = _named_after(case)
        if place and (name := _unique_name(place, images)):
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
            f"{names_of([case.case_id for case in absent])}; {_way_out(absent[0], images)}"
        )
    return files


def file_predictor(files: Mapping[str, Path], data: DataConfig) -> Predictor:
    """Read the label files that `prediction_files` found, by case.

    If a reader resamples a picture to its mask's grid, labels of the picture's own size are resampled as well.
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


def _way_out(case: Case, images: Mapping[str, Sequence[Path]]) -> str:
    """The way out for a case without a prediction."""
    names, place = [case.case_id], _named_after(case)
    if place and place != case.images[0] and (name := _unique_name(place, images)):
        names.append("/".join(name))
    files = " or ".join(f"{name}.nii.gz" for name in names)
    return f"each needs a file such as {files}, anywhere below the folder"


def _named_after(case: Case) -> Path | None:
    """The path that `maag predict` names a case's labels after: its image file, or the folder of its DICOM series."""
    folder = case.images[0].parent
    if not suffix_of(case.images[0]):
        return folder if all(image.parent == folder for image in case.images) else None
    return case.images[0] if len(case.images) == 1 else None


def _unique_name(image: Path, images: Mapping[str, Sequence[Path]]) -> tuple[str, ...] | None:
    """The shortest tail of the path of `image` that is unique among `images` (by stem); None if there is none."""
    namesakes = images[stem_of(image)]
    for length in range(1, len(image.parts) + 1):
        name = _tail(image, length)
        if sum(_tail(other, length) == name for other in namesakes) == 1:
            return name
    return None


def _tail(path: Path, length: int) -> tuple[str, ...]:
    """The last `length` parts (or all) of a path without its suffix."""
    return (*path.parts[:-1], stem_of(path))[-length:]


def _pixels(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
