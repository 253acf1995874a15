"""Predictions that were made elsewhere: which label file is of which case, and its labels on the grid of the image."""

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
            f"{names_of([case.case_id for case in absent])}; {_way_out(absent[0], images)}"
        )
    return files


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


def _pixels(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
