"""One image to predict, wherever it lies: files here, or objects in a bucket that are fetched when it is its turn."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from deploy.inputs.channel_files import ChannelFiles
from deploy.inputs.images import DicomSeries, InputImage, find_images
from maag.data.files import dicom_file, pictures
from maag.data.files.label_files import SUFFIXES
from maag.errors import DataError, MaagError, MissingObjectError, ObjectChangedError
from maag.storage.opening import open_store
from maag.storage.store import Store, StoredObject

DICOM_SUFFIXES = dicom_file.SUFFIXES
"""By which DICOM files in a bucket are known, where opening each to look would cost too much."""


class Fetched(NamedTuple):
    """An image that lies here now."""

    image: InputImage
    version: str
    """Of the source, as in the ledger."""
    origins: Mapping[str, str]
    """By path here: where each file was fetched from."""


class Source(Protocol):
    """One image to predict."""

    @property
    def place(self) -> str:
        """Path or URI, for people."""

    @property
    def target(self) -> str:
        """The key of its labels in the output."""

    @property
    def slices(self) -> tuple[str, ...]:
        """Paths or URIs of a DICOM series' files; none of what is a file."""

    @property
    def files(self) -> tuple[str, ...]:
        """Paths or URIs of all that it is made of."""

    def bands(self) -> int | None:
        """How many channels a picture holds; None where it cannot be read."""

    def with_channels(self, further: Sequence[Any], target: str, problem: str | None) -> Source:
        """The image of which this file is the first channel and `further`, of the same kind, are the others.

        Its labels go to `target`; `problem` is why it cannot be segmented, if so.
        """

    def version(self) -> str:
        """Changes when its content does: `sha256:` of files, `etag:` of objects as listed. Raises StorageError."""

    def fetch(self, scratch: Path, version: str) -> Fetched:
        """Bring it here, into the folder `scratch` if need be; `version` is what it had.

        Raises StorageError, and DataError where its files make no image.
        """


@dataclass(frozen=True, slots=True)
class LocalSource:
    """An image on this machine, or on a disk that all workers share."""

    image: InputImage
    target: str
    problem: str | None = None
    """Why its channels make no image."""

    @property
    def place(self) -> str:
        """See Source."""
        return str(self.image.place)

    @property
    def slices(self) -> tuple[str, ...]:
        """See Source."""
        return tuple(map(str, self.image.files)) if isinstance(self.image, DicomSeries) else ()

    @property
    def files(self) -> tuple[str, ...]:
        """See Source."""
        several = self.image.files if isinstance(self.image, DicomSeries | ChannelFiles) else (self.image.place,)
        return tuple(map(str, several))

    def bands(self) -> int | None:
        """See Source."""
        return _bands_of(self.image.place)

    def with_channels(self, further: Sequence[LocalSource], target: str, problem: str | None) -> LocalSource:
        """See Source."""
        files = tuple(source.image.place for source in (self, *further))
        return LocalSource(ChannelFiles(files, Path(target)), target, problem)

    def version(self) -> str:
        """See Source."""
        return f"sha256:{self.image.digest()}"

    def fetch(self, scratch: Path, version: str) -> Fetched:
        """See Source."""
        if self.problem:
            raise DataError(self.problem)
        return Fetched(self.image, version, {})


@dataclass(frozen=True, slots=True)
class CloudSource:
    """An object in a store, or those of an image's channels, or of a DICOM series in one folder."""

    root: str
    """URI of the store."""
    objects: tuple[StoredObject, ...]
    target: str
    dicom_seg: bool = False
    problem: str | None = None
    """Why its channels make no image."""
    even: bool | None = None
    """Of slices that are known to be one volume, as in BucketSeries; None where their headers are to tell."""

    @property
    def place(self) -> str:
        """See Source."""
        first = self.objects[0].key
        whole_folder = len(self.objects) > 1 and is_dicom(first)
        return store_of(self.root).child(str(PurePosixPath(first).parent) if whole_folder else first)

    @property
    def slices(self) -> tuple[str, ...]:
        """See Source."""
        return tuple(store_of(self.root).child(found.key) for found in self.objects if is_dicom(found.key))

    @property
    def files(self) -> tuple[str, ...]:
        """See Source."""
        return tuple(store_of(self.root).child(found.key) for found in self.objects)

    def bands(self) -> int | None:
        """See Source; fetches it."""
        first = self.objects[0]
        with tempfile.TemporaryDirectory(prefix="maag-bands-") as folder, suppress(MaagError):
            place = Path(folder) / f"picture{_ending(first.key)}"
            fetch_current(store_of(self.root), first, place)
            return _bands_of(place)
        return None

    def with_channels(self, further: Sequence[CloudSource], target: str, problem: str | None) -> CloudSource:
        """See Source."""
        objects = tuple(found for source in (self, *further) for found in source.objects)
        return replace(self, objects=objects, target=target, problem=problem)

    def version(self) -> str:
        """See Source."""
        return _version_of(self.objects)

    def fetch(self, scratch: Path, version: str) -> Fetched:
        """See Source. An object that was replaced after it was listed is taken as it is now.

        Raises DataError where it is not one image.
        """
        if self.problem:
            raise DataError(self.problem)
        store = store_of(self.root)
        # Names of our own, for keys may be longer or odder than file systems allow.
        places = [scratch / f"{number:05}{_ending(listed.key)}" for number, listed in enumerate(self.objects)]
        found = [fetch_current(store, listed, place) for listed, place in zip(self.objects, places, strict=True)]
        origins = {str(place): store.child(listed.key) for place, listed in zip(places, self.objects, strict=True)}
        origins[str(scratch)] = self.place  # after the files in it
        return Fetched(self._image_of(scratch, places), _version_of(found), origins)

    def _image_of(self, scratch: Path, places: Sequence[Path]) -> InputImage:
        if self.even is not None:
            return DicomSeries(scratch, Path(self.target), tuple(places), self.dicom_seg, self.even)
        if len(places) > 1 and not is_dicom(places[0].name):
            return ChannelFiles(tuple(places), Path(self.target))
        images = find_images(scratch if is_dicom(places[0].name) else places[0], dicom_seg=self.dicom_seg)
        if len(images) > 1:
            raise DataError(f"{self.place}: {len(images)} DICOM series in one folder; give each a folder of its own")
        return images[0]


def _bands_of(picture: Path) -> int | None:
    try:
        return len(pictures.load_picture(picture).voxels)
    except MaagError:  # Its volume will say so.
        return None


def fetch_current(store: Store, listed: StoredObject, to: Path) -> StoredObject:
    """Bring an object here as it is now, should it have been replaced after it was listed. Raises StorageError."""
    try:
        return store.fetch(listed.key, to, listed.version)
    except ObjectChangedError:
        now = store.stat(listed.key)
        if now is None:
            raise MissingObjectError(f"{store.child(listed.key)}: was removed after it was listed") from None
        return store.fetch(now.key, to, now.version)


def _version_of(objects: Sequence[StoredObject]) -> str:
    if len(objects) == 1:
        return f"etag:{objects[0].version}"
    all_of_them = json.dumps([(found.key, found.version) for found in objects])
    return f"etag:{hashlib.sha256(all_of_them.encode()).hexdigest()}"


def _ending(key: str) -> str:
    return next((suffix for suffix in (*SUFFIXES, *DICOM_SUFFIXES) if key.lower().endswith(suffix)), "")


def is_dicom(key: str) -> bool:
    """Whether an object is a DICOM file, by its name."""
    return key.lower().endswith(DICOM_SUFFIXES)


@lru_cache(maxsize=32)
def store_of(root: str) -> Store:
    """One client a process for each store."""
    return open_store(root)
