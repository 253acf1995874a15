"""One image to predict: local files, or objects in a bucket that are fetched when they are needed."""

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
"""DICOM files in a bucket are recognised by these, as opening each would cost too much."""


class Fetched(NamedTuple):
    """An image in local files."""

    image: InputImage
    version: str
    """Version of the source, as in the ledger."""
    origins: Mapping[str, str]
    """By local path: where the file was fetched from."""


class Source(Protocol):
    """One image to predict."""

    @property
    def place(self) -> str:
        """Path or URI, to show to people."""

    @property
    def target(self) -> str:
        """Key of its labels in the output."""

    @property
    def slices(self) -> tuple[str, ...]:
        """Paths or URIs of a DICOM series' files; empty for other images."""

    @property
    def files(self) -> tuple[str, ...]:
        """Paths or URIs of all its files."""

    def bands(self) -> int | None:
        """Number of channels in a picture; None if it cannot be read."""

    def with_channels(self, further: Sequence[Any], target: str, problem: str | None) -> Source:
        """The image whose first channel is this file, and whose other channels are `further`, of the same type.

        Its labels go to `target`; `problem` is why it cannot be segmented, if so.
        """

    def version(self) -> str:
        """Version of its content: `sha256:` of files, `etag:` of objects as listed. Raises StorageError."""

    def fetch(self, scratch: Path, version: str) -> Fetched:
        """Fetch it, into the folder `scratch` if needed; `version` is what `version()` returned.

        Raises StorageError, and DataError if its files are not an image.
        """


@dataclass(frozen=True, slots=True)
class LocalSource:
    """An image on this machine, or on a disk that all workers share."""

    image: InputImage
    target: str
    problem: str | None = None
    """Why its channels are not an image, if so."""

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
        paths = self.image.files if isinstance(self.image, DicomSeries | ChannelFiles) else (self.image.place,)
        return tuple(map(str, paths))

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
    """Why its channels are not an image, if so."""
    even: bool | None = None
    """For slices that are known to be one volume, as in BucketSeries; None if that is decided by their headers."""

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
        """See Source; fetches the object."""
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
        """See Source. An object replaced after it was listed is fetched in its current version.

        Raises DataError if the objects are not one image.
        """
        if self.problem:
            raise DataError(self.problem)
        store = store_of(self.root)
        # Not named by keys, which file systems may not allow.
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
    except MaagError:  # reported when the image is segmented
        return None


def fetch_current(store: Store, listed: StoredObject, to: Path) -> StoredObject:
    """Fetch an object, in its current version if it was replaced after it was listed. Raises StorageError."""
    try:
        return store.fetch(listed.key, to, listed.version)
    except ObjectChangedError:
        current = store.stat(listed.key)
        if current is None:
            raise MissingObjectError(f"{store.child(listed.key)}: was removed after it was listed") from None
        return store.fetch(current.key, to, current.version)


def _version_of(objects: Sequence[StoredObject]) -> str:
    if len(objects) == 1:
        return f"etag:{objects[0].version}"
    versions = json.dumps([(found.key, found.version) for found in objects])
    return f"etag:{hashlib.sha256(versions.encode()).hexdigest()}"


def _ending(key: str) -> str:
    return next((suffix for suffix in (*SUFFIXES, *DICOM_SUFFIXES) if key.lower().endswith(suffix)), "")


def is_dicom(key: str) -> bool:
    """Whether an object is a DICOM file, by its name."""
    return key.lower().endswith(DICOM_SUFFIXES)


@lru_cache(maxsize=32)
def store_of(root: str) -> Store:
    """The store at `root`, with one client per process."""
    return open_store(root)
