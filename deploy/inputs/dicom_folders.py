"""Group the DICOM files of a folder: by volume in LVSC studies, otherwise by series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from maag.data.datasets.lvsc import volumes_among
from maag.data.files.dicom_file import UNREADABLE, SliceGeometry, read_geometry


class FolderSeries(NamedTuple):
    """DICOM files of one folder that are segmented together."""

    files: tuple[Path, ...]
    name: str | None
    """Name of their labels in the folder; None if they take the name of the folder, as its only series."""
    even: bool = True
    """Whether missing slices are refused, as in NamedVolume."""


def series_of_folder(
    files: Sequence[Path],
    uids_of: Callable[[Sequence[Path]], Iterable[str | None]],
    geometry_of: Callable[[Path], SliceGeometry] = read_geometry,
) -> list[FolderSeries]:
    """The series among the `files` of one folder.

    Files named as in LVSC, where a series holds many volumes, become its cases. If there are several other series, each
    is named by its UID.

    Args:
        files: files that are not DICOM images are left out.
        uids_of: returns the series of each file, as `series_uid`.
        geometry_of: reads a slice's header, as in `volumes_among`.
    """
    series = [FolderSeries(images, name, even) for name, (images, even) in volumes_among(files, geometry_of).items()]
    grouped = {file for one in series for file in one.files}
    others = [file for file in files if file not in grouped]
    by_uid: dict[str, list[Path]] = {}
    for file, uid in zip(others, uids_of(others), strict=True):
        if uid is not None:
            by_uid.setdefault(uid, []).append(file)
    # An unreadable file may belong to any series of the folder, so none is complete.
    unreadable = by_uid.pop(UNREADABLE, []) if len(by_uid) > 1 else []
    several = len(by_uid) > 1
    series += [FolderSeries((*found, *unreadable), uid if several else None) for uid, found in by_uid.items()]
    return series
