"""The slices of DICOM files: one per file, or one per frame of an enhanced file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from maag.data.files.dicom_file import (
    GEOMETRY_TAGS,
    UNREADABLE,
    SliceGeometry,
    geometry_of,
    naming_damage,
    numbers,
    read_dataset,
    series_uid,
)
from maag.data.files.dicom_frames import CLOCKS, FRAME_CLOCKS, FRAME_TAGS, frames_of, items_of, require_one_stack
from maag.errors import DataError, StorageError


@dataclass(frozen=True, eq=False, slots=True)
class DicomSlice:
    """One slice: its geometry, and where its pixels are."""

    path: Path
    geometry: SliceGeometry
    header: pydicom.Dataset = field(repr=False)
    """The elements that were read; of a frame its own and the shared ones."""
    frame: int | None = None
    """Index in an enhanced file, from 0; None for a single-slice file."""
    kind: Mapping[str, str] = field(default_factory=dict)
    """As in Frame; empty for a single-slice file."""

    @property
    def name(self) -> str:
        """Path for error messages, with the frame counted from 1."""
        return str(self.path) if self.frame is None else f"{self.path}, frame {self.frame + 1}"

    @property
    def way_apart(self) -> str:
        """What to do with other slices at its position that are not phases."""
        return "move each to its own folder" if self.frame is None else "export each as its own series"

    @property
    def clocks(self) -> tuple[str, ...]:
        """Elements that may distinguish phases, in order of preference."""
        return CLOCKS if self.frame is None else FRAME_CLOCKS

    @property
    def scale(self) -> tuple[float, float]:
        """Rescale slope and intercept of a frame; (1, 0) unless it has both. Raises DataError if malformed."""
        with naming_damage(self.name):
            slope, intercept = (self.header.get(tag) for tag in ("RescaleSlope", "RescaleIntercept"))
            if slope is None or intercept is None:
                return 1.0, 0.0
            slope, intercept = numbers([slope, intercept], 2)
            return slope, intercept

    def times(self) -> dict[str, float]:
        """The `clocks` in its header, by keyword. Raises DataError for one that is not a number."""
        with naming_damage(self.name):
            found = {tag: self.header.get(tag) for tag in self.clocks}
            return {tag: numbers([value], 1)[0] for tag, value in found.items() if value not in (None, "")}


def read_slice(path: Path) -> DicomSlice:
    """The slice of a single-slice file. Raises as `maag.data.files.dicom_file.read_geometry`."""
    header = read_dataset(path, stop_before_pixels=True, specific_tags=[*GEOMETRY_TAGS, *CLOCKS])
    return DicomSlice(path, geometry_of(header, path), header)


def read_slices(paths: Iterable[Path]) -> list[DicomSlice]:
    """All slices of the files, in the order of files and of frames; each header is read once.

    Raises:
        DataError: as `read_geometry`, but enhanced files are read; these if they have several stacks or orientations,
            or do not describe each frame.
        StorageError: a file cannot be opened.
    """
    return [one for path in paths for one in _slices_of(path)]


def is_enhanced(path: Path) -> bool:
    """Whether a file is an enhanced image, which may be a whole series."""
    try:
        if series_uid(path) in (None, UNREADABLE):
            return False
        header = read_dataset(path, stop_before_pixels=True, specific_tags=FRAME_TAGS)
        return bool(items_of(header, path))
    except (DataError, StorageError):
        return False


def _slices_of(path: Path) -> Sequence[DicomSlice]:
    header = read_dataset(path, stop_before_pixels=True, specific_tags=[*GEOMETRY_TAGS, *CLOCKS, *FRAME_TAGS])
    frames = frames_of(header, path)
    if not frames:
        return [DicomSlice(path, geometry_of(header, path), header)]
    geometries = [geometry_of(one.header, f"{path}, frame {number}") for number, one in enumerate(frames, start=1)]
    require_one_stack(frames, geometries, path)
    return [
        DicomSlice(path, geometry, one.header, number, one.kind)
        for number, (geometry, one) in enumerate(zip(geometries, frames, strict=True))
    ]
