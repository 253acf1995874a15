"""Images that can be predicted: NIfTI files of one or several frames, pictures, and DICOM series."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.artifact.manifest import sha256_of
from deploy.inputs.dicom_folders import series_of_folder
from deploy.inputs.foreign import FOREIGN, is_foreign
from maag.data.files import dicom_file, dicom_phases, dicom_series, dicom_slices, nifti, nifti_writing, pictures, volume
from maag.data.files.folder_tree import files_below
from maag.data.files.label_files import SUFFIXES, stem_of
from maag.data.files.volume import Volume
from maag.errors import ConfigError, DataError, MissingDataError, StorageError
from maag.storage import write_json


class InputImage(Protocol):
    """One image to predict, of any file type."""

    @property
    def place(self) -> Path:
        """The file, or the folder of a series."""

    @property
    def target(self) -> Path:
        """Path of its labels, relative to the output folder."""

    def digest(self) -> str:
        """Hexadecimal digest of its files. Raises StorageError."""

    def frames(self) -> Iterator[Volume]:
        """Its volumes in temporal order, loaded lazily. Raises DataError or StorageError."""

    def save_labels(
        self, path: Path, labels: NDArray[np.uint8], classes: Sequence[str], model_digest: str = ""
    ) -> None:
        """Write (T, Z, Y, X) labels to `path` on the image's own grid, atomically.

        File types with a field for it record `model_digest`. Raises DataError or StorageError.
        """


@dataclass(frozen=True, slots=True)
class NiftiImage:
    """A NIfTI file; labels are NIfTI with the same grid, codes and units, and a JSON file if class names do not fit."""

    place: Path
    target: Path

    def digest(self) -> str:
        """See InputImage."""
        return sha256_of(self.place)

    def frames(self) -> Iterator[Volume]:
        """See InputImage."""
        count = volume.num_volumes(self.place)
        for number in range(count):
            yield volume.load_volume(self.place, number if count > 1 else None)

    def save_labels(
        self, path: Path, labels: NDArray[np.uint8], classes: Sequence[str], model_digest: str = ""
    ) -> None:
        """See InputImage."""
        _save_names(path, classes)
        nifti_writing.save_labels(path, labels[0] if len(labels) == 1 else labels, self.place, classes)


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG, JPEG or TIFF file; labels are a PNG of the same size, class names a JSON file beside it."""

    place: Path
    target: Path

    def digest(self) -> str:
        """See InputImage."""
        return sha256_of(self.place)

    def frames(self) -> Iterator[Volume]:
        """See InputImage."""
        yield pictures.load_picture(self.place)

    def save_labels(
        self, path: Path, labels: NDArray[np.uint8], classes: Sequence[str], model_digest: str = ""
    ) -> None:
        """See InputImage."""
        write_json(path.with_suffix(".json"), {"labels": dict(enumerate(classes))})
        pictures.save_indices(path, labels[0, 0])


@dataclass(frozen=True, slots=True)
class DicomSeries:
    """The files of one series, of a cine perhaps; labels are NIfTI in the patient's coordinates, or DICOM-SEG."""

    place: Path
    target: Path
    files: tuple[Path, ...]
    as_segmentation: bool = False
    """Write a DICOM segmentation."""
    even: bool = True
    """Refuse it where slices are missing."""

    def digest(self) -> str:
        """See InputImage."""
        return hashlib.sha256(json.dumps([sha256_of(file) for file in self.files]).encode()).hexdigest()

    def frames(self) -> Iterator[Volume]:
        """See InputImage."""
        if not self.even:
            yield dicom_series.load_series(self.files)
            return
        phases = dicom_phases.phases_of(dicom_slices.read_slices(self.files))
        if len(phases) > 1 and self.as_segmentation:
            raise DataError(
                f"{self.place}: a cine of {len(phases)} phases, and a DICOM segmentation is of one volume; leave out "
                "--dicom-seg, or give each phase as a series of its own"
            )
        for phase in phases:
            dicom_series.require_even(phase)
            yield dicom_series.load_series(phase)

    def save_labels(
        self, path: Path, labels: NDArray[np.uint8], classes: Sequence[str], model_digest: str = ""
    ) -> None:
        """See InputImage."""
        if self.as_segmentation:
            from deploy.inputs.dicom_seg import save_segmentation

            save_segmentation(path, labels[0], self.files, classes, model_digest)
        else:
            _save_names(path, classes)
            is_cine = len(labels) > 1
            slices = dicom_slices.read_slices(self.files)
            _, affine = dicom_series.grid_of_series(dicom_phases.phases_of(slices)[0] if is_cine else slices)
            array, description = labels if is_cine else labels[0], nifti_writing.description_of(classes)
            nifti_writing.save_volume(path, array, affine, description=description)


def _save_names(path: Path, classes: Sequence[str]) -> None:
    """Write the classes to a JSON file if the labels' header has no room; before the labels, which mark it as done."""
    if not nifti_writing.fit_description(classes):
        write_json(path.with_name(f"{stem_of(path)}.json"), {"labels": dict(enumerate(classes))})


def find_images(
    given: Path, *, dicom_seg: bool = False, foreign: MutableSequence[str] | None = None
) -> list[InputImage]:
    """The images at `given`: one file, or all files in a folder and below it.

    With `dicom_seg` the labels of a DICOM series become a DICOM segmentation, `NAME.dcm`, else `NAME.nii.gz`. Files in
    a folder whose names say that they are volumes in an unsupported format are added to `foreign`.

    Raises:
        MissingDataError: `given` does not exist, or has no image in it.
        ConfigError: the file type is not supported.
    """
    if _is_file(given):
        if image := _image_at(given, Path(given.name)):
            return [image]
        if dicom_slices.is_enhanced(given):
            stem = given.stem if given.suffix.lower() in dicom_file.SUFFIXES else given.name
            return [DicomSeries(given, Path(f"{stem}{_ending_of(dicom_seg)}"), (given,), dicom_seg)]
        if is_foreign(given.name):
            raise ConfigError(f"{given}: {FOREIGN}; convert it to .nii.gz")
        raise ConfigError(
            f"{given}: neither a NIfTI file nor a picture by its name; for a DICOM series give its folder"
        )
    if given.exists() and not given.is_dir():
        raise ConfigError(f"{given}: a pipe or a device; give a file or a folder")
    if not given.is_dir():
        raise MissingDataError(f"{given}: no such file or folder")
    found: list[InputImage] = []
    others = []
    for path in sorted(filter(_is_file, files_below(given))):
        if image := _image_at(path, path.relative_to(given)):
            found.append(image)
        else:
            others.append(path)
    found += _series_in(given, others, dicom_seg)
    unread = [str(path) for path in others if is_foreign(path.name)]
    if not found:
        way_out = f"; {unread[0]} is {FOREIGN}: convert it to .nii.gz" if unread else ""
        raise MissingDataError(f"{given}: no NIfTI file, picture or DICOM series in this folder or below it{way_out}")
    if foreign is not None:
        foreign += unread
    return found


def _ending_of(dicom_seg: bool) -> str:
    return ".dcm" if dicom_seg else ".nii.gz"


def _is_file(path: Path) -> bool:
    """Whether it is a file, or a broken link with the suffix of an image, which reading then reports.

    DataLad leaves such links for files that it has not fetched.
    """
    known = (*SUFFIXES, *dicom_file.SUFFIXES)
    return path.is_file() or (path.is_symlink() and not path.exists() and path.name.lower().endswith(known))


def _image_at(path: Path, relative: Path) -> InputImage | None:
    """The file as an image whose labels go to the `relative` path; None if its name has no known suffix."""
    if nifti.is_nifti(path):
        return NiftiImage(path, relative)
    return Picture(path, relative.with_suffix(".png")) if pictures.is_picture(path) else None


def _series_in(root: Path, files: Sequence[Path], dicom_seg: bool) -> list[InputImage]:
    """DICOM files by folder and series: a folder of one series becomes one file of its name."""
    ending = _ending_of(dicom_seg)
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(file)
    series: list[InputImage] = []
    for folder, members in by_folder.items():
        relative = folder.relative_to(root)
        whole = relative if relative.name else Path(root.resolve().name)
        for one in series_of_folder(members, lambda some: map(_series_of, some)):
            target = relative / f"{one.name}{ending}" if one.name else whole.with_name(f"{whole.name}{ending}")
            series.append(DicomSeries(folder, target, one.files, dicom_seg, one.even))
    return series


def _series_of(file: Path) -> str | None:
    """The series UID of a file; UNREADABLE if it cannot be read, which fails its series only."""
    try:
        return dicom_file.series_uid(file) if file.exists() else dicom_file.UNREADABLE
    except StorageError:
        return dicom_file.UNREADABLE
