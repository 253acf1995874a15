"""Which DICOM files of a bucket belong together: those of a folder, and in LVSC's studies those of a volume."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from deploy.source_kinds import fetch_current
from maag.data.dicom_file import SliceGeometry, read_geometry
from maag.data.lvsc import volumes_among
from maag.storage.store import Store, StoredObject

_FOLDERS_AT_ONCE = 8  # most of them wait for the network


class BucketSeries(NamedTuple):
    """DICOM files that are segmented together."""

    folder: str
    """The key of the folder that they are in; empty where they are in none."""
    objects: tuple[StoredObject, ...]
    name: str | None = None
    """Of the volume that they are by their names; None where they are all others of their folder."""
    even: bool | None = None
    """Of such a volume, as in NamedVolume."""


def series_among(dicom_files: Sequence[StoredObject], store: Store) -> list[BucketSeries]:
    """DICOM files by folder and, where LVSC's names tell them apart, by volume, as they are in a folder here.

    Of slices with such names one phase is fetched, for its header, and not kept: by their size they are of one volume
    or another. Those that cannot be had are told of when it is their volume's turn.
    """
    folders: dict[str, list[StoredObject]] = {}
    for found in dicom_files:
        folders.setdefault(found.key.rpartition("/")[0], []).append(found)
    pool = ThreadPoolExecutor(_FOLDERS_AT_ONCE, thread_name_prefix="headers")
    try:
        groups = pool.map(lambda folder: _series_in(folder, folders[folder], store), folders)
        return [series for group in groups for series in group]
    finally:
        pool.shutdown(cancel_futures=True)


def _series_in(folder: str, members: Sequence[StoredObject], store: Store) -> list[BucketSeries]:
    by_name = {Path(found.key.rpartition("/")[2]): found for found in members}
    with tempfile.TemporaryDirectory(prefix="maag-headers-") as scratch:

        def geometry_of(name: Path) -> SliceGeometry:
            place = Path(scratch) / "slice.dcm"
            fetch_current(store, by_name[name], place)
            return read_geometry(place)

        volumes = volumes_among(by_name, geometry_of)
    series = [
        BucketSeries(folder, tuple(by_name[image] for image in images), name, even)
        for name, (images, even) in volumes.items()
    ]
    told_apart = {found.key for one in series for found in one.objects}
    others = tuple(found for found in members if found.key not in told_apart)
    return [*series, BucketSeries(folder, others)] if others else series
