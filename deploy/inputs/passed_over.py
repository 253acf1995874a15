"""Recognise input files that are labels of others, by their paths only: they are not segmented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from deploy.inputs.foreign import FOREIGN
from maag.data.datasets.lvsc import SLICE_NAME
from maag.data.datasets.nnunet import CHANNEL_NAME
from maag.data.files.label_files import LABEL_ENDINGS, stem_of
from maag.data.files.pictures import is_picture

_BESIDE = {
    **dict.fromkeys(("masks", "scribbles"), ("images",)),
    **dict.fromkeys(("labelsTr", "labelsTs"), ("imagesTr", "imagesTs")),
}
"""Folders of labels in layouts that maag reads, and folders of their images, one of which must be beside them."""
_APART = ("masks", "scribbles", "acdc_scribbles")
"""Folders whose files are labels if an image elsewhere has the same name but for the suffix."""
_SCRIBBLES = tuple(ending for ending in LABEL_ENDINGS if ending.startswith("_scribble"))
"""Suffixes of names that only labels have: their image may be in any folder."""
_SHEET = "-sheet"
"""`maag data scribble` adds this to a folder's name for its contact sheet."""
_GROUND = "Ground"


def labels_among(
    files: Sequence[PurePath], dicom_files: Collection[PurePath] = (), root: PurePath | None = None
) -> dict[PurePath, str]:
    """Those of `files` that are masks or scribbles of others or of DICOM files, each with the reason.

    Only given files count: a folder `masks` without images beside it is a folder of images.

    Args:
        files: NIfTI files and pictures.
        dicom_files: the DICOM slices.
        root: the input folder; its name and those above it are ignored. None for none.
    """
    paths = _Paths(files, dicom_files, root)
    return {file: reason for file in files if (reason := paths.reason_of(file))}


def sentence(passed_over: Mapping[str, str]) -> str:
    """A line on how many files were passed over and why; `passed_over` has the reason by path."""
    foreign = [place for place, reason in passed_over.items() if reason == FOREIGN]
    labels = {place: reason for place, reason in passed_over.items() if reason != FOREIGN}
    parts = [_of_labels(labels)] if labels else []
    if foreign:
        what, them = (f"{len(foreign)} files", "them") if len(foreign) > 1 else ("1 file", "it")
        parts.append(f"{what} {FOREIGN}: to segment {them}, convert {them} to .nii.gz, first {foreign[0]}")
    return f"Passed over {'; and '.join(parts)}"


def _of_labels(passed_over: Mapping[str, str]) -> str:
    total = len(passed_over)
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(passed_over.values()).most_common())
    first = next(iter(passed_over))
    what, way_out = (
        ("files that are labels rather than images", f"them, give these files in a separate call, first {first}")
        if total > 1
        else ("file that is a label rather than an image", f"it, give {first} in a separate call")
    )
    return f"{total} {what}: {reasons}; to segment {way_out}"


class _Paths:
    """All paths, to look up each file among them."""

    def __init__(self, files: Sequence[PurePath], dicom_files: Collection[PurePath], root: PurePath | None) -> None:
        self._root = root
        self._stems = {stem for file in files for stem in _stems(file)}
        self._names = {stem.name for stem in self._stems}
        self._dicom_folders = {folder for file in dicom_files for folder in file.parents}
        self._folders = {folder for file in files for folder in file.parents} | self._dicom_folders
        self._dicom_stems = {file.parent / file.stem.upper() for file in dicom_files}
        self._lvsc_stems = {stem.name for stem in self._dicom_stems if SLICE_NAME.match(stem.name)}

    def reason_of(self, file: PurePath) -> str | None:
        """Why the file is a label; None if it is an image."""
        stem = _stem(file)
        owners = {stem.name.removesuffix(ending): ending for ending in LABEL_ENDINGS if stem.name.endswith(ending)}
        owners = {owner: ending for owner, ending in owners.items() if owner not in _NO_NAMES}
        if any(stem.with_name(owner) in self._stems for owner in owners):
            return "named as labels of the image beside them"
        if any(owner in self._names for owner, ending in owners.items() if ending in _SCRIBBLES):
            return "named as scribbles of an image"
        if file.suffix == ".png" and self._is_sheet(stem):
            return "sheets of the folder beside them"
        picture, upper = is_picture(Path(file.name)), stem.name.upper()
        if picture and (stem.with_name(upper) in self._dicom_stems or upper in self._lvsc_stems):
            return "with the name of a DICOM file"
        for folder in self._folders_of(file):
            images = [name for name in _BESIDE.get(folder.name, ()) if folder.with_name(name) in self._folders]
            if images:
                return f"in {folder.name}/ beside {images[0]}/"
            beside_slices = folder.parent in self._dicom_folders and folder not in self._dicom_folders
            if picture and folder.name == _GROUND and beside_slices:
                return f"in {_GROUND}/ beside DICOM files"
            if folder.name in _APART and any(owner in self._names for owner in owners):
                return f"in {folder.name}/, named as labels of an image"
        return None

    def _is_sheet(self, stem: PurePath) -> bool:
        folder = stem.name.removesuffix(_SHEET)
        return folder not in (*_NO_NAMES, stem.name) and stem.with_name(folder) in self._folders

    def _folders_of(self, file: PurePath) -> Iterator[PurePath]:
        """The parent folders of a file, up to the root."""
        for folder in file.parents:
            if folder == self._root:
                return
            yield folder


_NO_NAMES = ("", ".", "..")


def _stem(file: PurePath) -> PurePath:
    stem = stem_of(Path(file.name))
    return file if stem in _NO_NAMES else file.with_name(stem)


def _stems(file: PurePath) -> Iterator[PurePath]:
    """A file's stem, and that of its image if it is a channel: `X` of `X_0000`."""
    stem = _stem(file)
    yield stem
    if (match := CHANNEL_NAME.match(stem.name)) and match[1] not in _NO_NAMES:
        yield stem.with_name(match[1])
