"""Which DICOM files of a folder belong together: in LVSC's studies those of a volume, else those of a series."""

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
    """Of their labels in the folder; None for those that are called as the folder, which has no other series."""
    even: bool = True
    """Whether they are no image where slices are missing, as in NamedVolume."""


def series_of_folder(
    files: Sequence[Path],
    uids_of: Callable[[Sequence[Path]], Iterable[str | None]],
    geometry_of: Callable[[Path], SliceGeometry] = read_geometry,
) -> list[FolderSeries]:
    """What the `files` of one folder are.

    Those that LVSC's names tell apart, of which a series holds many, are called as its cases; of others each series is
    called by its UID where there are several.

    Args:
        files: anything else among them is left out.
        uids_of: tells of files their series, as `series_uid` does.
        geometry_of: reads a slice's header, as in `volumes_among`.
    """
    series = [FolderSeries(images, name, even) for name, (images, even) in volumes_among(files, geometry_of).items()]
    told_apart = {file for one in series for file in one.files}
    others = [file for file in files if file not in told_apart]
    by_uid: dict[str, list[Path]] = {}
    for file, uid in zip(others, uids_of(others), strict=True):
        if uid is not None:
            by_uid.setdefault(uid, []).append(file)
    # Nobody knows of which series an unreadable file is a slice: none of its folder's is whole.
    unreadable = by_uid.pop(UNREADABLE, []) if len(by_uid) > 1 else []
    several = len(by_uid) > 1
    series += [FolderSeries((*found, *unreadable), uid if several else None) for uid, found in by_uid.items()]
    return series
