"""Group the DICOM files of a bucket, as `dicom_folders` groups those of local folders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from deploy.inputs.dicom_folders import series_of_folder
from deploy.inputs.source_kinds import fetch_current
from maag.data.files.dicom_file import UNREADABLE, SliceGeometry, read_geometry, series_uid
from maag.errors import StorageError
from maag.storage.store import Store, StoredObject

# Most threads wait for the network.
_FOLDERS_AT_ONCE = 8
_HEADERS_AT_ONCE = 32
_READ_FIRST = 8
"""Files spread over a folder whose series is read first."""
_START_BYTES = 1 << 14
"""Bytes of a file in which most headers give their series."""


class BucketSeries(NamedTuple):
    """DICOM files that are segmented together."""

    folder: str
    """Key of their folder; empty at the top of the bucket."""
    objects: tuple[StoredObject, ...]
    name: str | None
    """As in FolderSeries."""
    even: bool | None
    """As in FolderSeries; None while it is unknown whether all are of one series."""


def series_among(dicom_files: Sequence[StoredObject], store: Store) -> list[BucketSeries]:
    """DICOM files by folder and, if it has several, by series; in LVSC studies by volume.

    Most folders hold one series, and reading the start of a file takes nearly as long as fetching it. So the series of
    a few files of a folder are read first, and of all files only if these differ. Slices named as in LVSC are assigned
    to volumes by size: those of one phase are fetched for their headers, and not kept. Files that cannot be fetched are
    reported when their series is read.
    """
    folders: dict[str, list[StoredObject]] = {}
    for found in dicom_files:
        folders.setdefault(found.key.rpartition("/")[0], []).append(found)
    headers = ThreadPoolExecutor(_HEADERS_AT_ONCE, thread_name_prefix="headers")
    pool = ThreadPoolExecutor(_FOLDERS_AT_ONCE, thread_name_prefix="folders")
    try:
        groups = pool.map(lambda folder: _series_in(folder, folders[folder], store, headers), folders)
        return [series for group in groups for series in group]
    finally:
        headers.shutdown(cancel_futures=True)  # first, because folders wait for them
        pool.shutdown(cancel_futures=True)


def _series_in(
    folder: str, members: Sequence[StoredObject], store: Store, headers: ThreadPoolExecutor
) -> list[BucketSeries]:
    by_name = {Path(found.key.rpartition("/")[2]): found for found in members}
    with tempfile.TemporaryDirectory(prefix="maag-headers-") as scratch:

        def geometry_of(name: Path) -> SliceGeometry:
            place = Path(scratch) / "slice.dcm"
            fetch_current(store, by_name[name], place)
            return read_geometry(place)

        def uids_of(names: Sequence[Path]) -> Iterable[str | None]:
            places = {name: Path(scratch) / f"{number}.dcm" for number, name in enumerate(names)}

            def read(some: Sequence[Path]) -> dict[Path, str | None]:
                found = headers.map(lambda name: _series_uid(store, by_name[name], places[name]), some)
                return dict(zip(some, found, strict=True))

            found = read(_some_of(names))
            if len(uids := set(found.values())) == 1 and None not in uids:
                return [*uids] * len(names)
            found |= read([name for name in names if name not in found])
            return [found[name] for name in names]

        series = series_of_folder(list(by_name), uids_of, geometry_of)
    return [
        BucketSeries(folder, tuple(map(by_name.__getitem__, one.files)), one.name, one.even if one.name else None)
        for one in series
    ]


def _some_of(names: Sequence[Path]) -> list[Path]:
    """A few names, evenly spread from the first to the last."""
    count, last = min(_READ_FIRST, len(names)), len(names) - 1
    return [names[last * step // max(1, count - 1)] for step in range(count)]


def _series_uid(store: Store, listed: StoredObject, place: Path) -> str | None:
    """As `series_uid`, of an object that is stored at `place` meanwhile."""
    try:
        if listed.size is not None and listed.size > _START_BYTES:
            place.write_bytes(store.read_start(listed.key, _START_BYTES))
            if (uid := series_uid(place)) not in (None, UNREADABLE):
                return uid
        fetch_current(store, listed, place)
        return series_uid(place)
    except StorageError:
        return UNREADABLE
    finally:
        place.unlink(missing_ok=True)
