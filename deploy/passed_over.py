"""Which of the files that inputs name are labels of the others, by their paths alone: they are no images to segment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath

from maag.data.label_files import LABEL_ENDINGS, stem_of
from maag.data.lvsc import SLICE_NAME
from maag.data.pictures import is_picture

_BESIDE = {
    **dict.fromkeys(("masks", "scribbles"), ("images",)),
    **dict.fromkeys(("labelsTr", "labelsTs"), ("imagesTr", "imagesTs")),
}
"""Folders of labels in layouts that maag reads, and those of their images, of which one must be beside them."""
_APART = ("masks", "scribbles", "acdc_scribbles")
"""Folders whose files are labels if an image elsewhere has their name but for the ending."""
_GROUND = "Ground"


def labels_among(files: Sequence[PurePath], dicom_files: Collection[PurePath] = ()) -> dict[PurePath, str]:
    """Those of `files` that are masks or scribbles of others or of DICOM files, with how they are known.

    Nothing is asked of what is not given: a folder `masks` without the images beside it is one of images.

    Args:
        files: NIfTI files and pictures.
        dicom_files: the slices that are there.
    """
    paths = _Paths(files, dicom_files)
    return {file: reason for file in files if (reason := paths.reason_of(file))}


def sentence(passed_over: Counter[str]) -> str:
    """How many were passed over, and why, in a line."""
    total = passed_over.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in passed_over.most_common())
    return (
        f"Passed over {total} {'files that are labels' if total > 1 else 'file that is a label'}, no "
        f"image{'s' if total > 1 else ''}: {reasons}; give their own folder to have such segmented"
    )


class _Paths:
    """What is there, to be asked about each file."""

    def __init__(self, files: Sequence[PurePath], dicom_files: Collection[PurePath]) -> None:
        self._stems = {_stem(file) for file in files}
        self._names = {stem.name for stem in self._stems}
        self._dicom_folders = {folder for file in dicom_files for folder in file.parents}
        self._folders = {folder for file in files for folder in file.parents} | self._dicom_folders
        self._dicom_stems = {file.parent / file.stem.upper() for file in dicom_files}
        self._lvsc_stems = {stem.name for stem in self._dicom_stems if SLICE_NAME.match(stem.name)}

    def reason_of(self, file: PurePath) -> str | None:
        """Why the file is a label; None for an image."""
        stem = _stem(file)
        owners = [owner for ending in LABEL_ENDINGS if (owner := stem.name.removesuffix(ending)) not in ("", stem.name)]
        if any(stem.with_name(owner) in self._stems for owner in owners):
            return "named as labels of the image beside them"
        picture, upper = is_picture(Path(file.name)), stem.name.upper()
        if picture and (stem.with_name(upper) in self._dicom_stems or upper in self._lvsc_stems):
            return "with the name of a DICOM file"
        for folder in file.parents:
            images = [name for name in _BESIDE.get(folder.name, ()) if folder.with_name(name) in self._folders]
            if images:
                return f"in {folder.name}/ beside {images[0]}/"
            beside_slices = folder.parent in self._dicom_folders and folder not in self._dicom_folders
            if picture and folder.name == _GROUND and beside_slices:
                return f"in {_GROUND}/ beside DICOM files"
            if folder.name in _APART and any(owner in self._names for owner in owners):
                return f"in {folder.name}/, named as labels of an image"
        return None


def _stem(file: PurePath) -> PurePath:
    return file.with_name(stem_of(Path(file.name)) or file.name)
