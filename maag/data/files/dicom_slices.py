"""The slices of DICOM files: one a file, or of an enhanced one each frame."""

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
from maag.data.files.dicom_frames import CLOCKS, FRAME_CLOCKS, FRAME_TAGS, frames_of, require_one_stack
from maag.errors import DataError, StorageError


@dataclass(frozen=True, eq=False, slots=True)
class DicomSlice:
    """One slice: where it lies, and where its pixels are."""

    path: Path
    geometry: SliceGeometry
    header: pydicom.Dataset = field(repr=False)
    """What was read of it; of a frame its own elements beside those that all have in common."""
    frame: int | None = None
    """Place in an enhanced file, from 0; None for the only slice of another."""
    kind: Mapping[str, str] = field(default_factory=dict)
    """Of a frame: what phases of a cine have in common, echoes do not."""

    @property
    def name(self) -> str:
        """For people, who count frames from 1."""
        return str(self.path) if self.frame is None else f"{self.path}, frame {self.frame + 1}"

    @property
    def way_apart(self) -> str:
        """What to do with further ones at its place that are no phases."""
        return "move each to a folder of its own" if self.frame is None else "export each as a series of its own"

    @property
    def clocks(self) -> tuple[str, ...]:
        """What may tell phases at its place apart, the best first."""
        return CLOCKS if self.frame is None else FRAME_CLOCKS

    @property
    def scale(self) -> tuple[float, float]:
        """Slope and intercept of a frame's pixels. Raises DataError."""
        with naming_damage(self.name):
            slope, intercept = (self.header.get(tag) for tag in ("RescaleSlope", "RescaleIntercept"))
            if slope is None or intercept is None:
                return 1.0, 0.0
            slope, intercept = numbers([slope, intercept], 2)
            return slope, intercept

    def times(self) -> dict[str, float]:
        """By name what its header has of `clocks`. Raises DataError for one that is no number."""
        with naming_damage(self.name):
            found = {tag: self.header.get(tag) for tag in self.clocks}
            return {tag: numbers([value], 1)[0] for tag, value in found.items() if value not in (None, "")}


def read_slice(path: Path) -> DicomSlice:
    """The only slice of a file. Raises as `maag.data.files.dicom_file.read_geometry`."""
    header = read_dataset(path, stop_before_pixels=True, specific_tags=[*GEOMETRY_TAGS, *CLOCKS])
    return DicomSlice(path, geometry_of(header, path), header)


def read_slices(paths: Iterable[Path]) -> list[DicomSlice]:
    """All slices of the files, in their order, and frames in theirs; every header is read once.

    Raises:
        DataError: as `read_geometry`, but for the frames of enhanced files; these where they are of several stacks or
            directions, or not described one by one.
        StorageError: a file cannot be opened.
    """
    return [one for path in paths for one in _slices_of(path)]


def is_enhanced(path: Path) -> bool:
    """Whether a file is an image of frames that it describes one by one, so that it may be a whole series."""
    try:
        if series_uid(path) in (None, UNREADABLE):
            return False
        header = read_dataset(path, stop_before_pixels=True, specific_tags=FRAME_TAGS)
        return bool(frames_of(header, path))
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
