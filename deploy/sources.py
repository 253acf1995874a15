"""What is to be predicted, wherever it lies: files here, or objects in a bucket that are fetched one by one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from deploy.images import DicomSeries, InputImage, find_images
from deploy.input_lists import together, without_lists
from deploy.passed_over import labels_among
from deploy.patterns import literal_folder, pattern_of
from maag.data import dicom, pictures
from maag.data.label_files import SUFFIXES
from maag.errors import ConfigError, DataError, MissingDataError, MissingObjectError, ObjectChangedError
from maag.storage.keys import is_uri, split_uri
from maag.storage.opening import open_store
from maag.storage.store import Store, StoredObject

DICOM_SUFFIXES = dicom.SUFFIXES
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

    def version(self) -> str:
        """Changes when its content does: `sha256:` of files, `etag:` of objects as listed. Raises StorageError."""

    def fetch(self, scratch: Path, version: str) -> Fetched:
        """Bring it here, into the folder `scratch` if need be; `version` is what it had. Raises StorageError."""


@dataclass(frozen=True, slots=True)
class LocalSource:
    """An image on this machine, or on a disk that all workers share."""

    image: InputImage
    target: str

    @property
    def place(self) -> str:
        """See Source."""
        return str(self.image.place)

    @property
    def slices(self) -> tuple[str, ...]:
        """See Source."""
        return tuple(map(str, self.image.files)) if isinstance(self.image, DicomSeries) else ()

    def version(self) -> str:
        """See Source."""
        return f"sha256:{self.image.digest()}"

    def fetch(self, scratch: Path, version: str) -> Fetched:
        """See Source."""
        return Fetched(self.image, version, {})


@dataclass(frozen=True, slots=True)
class CloudSource:
    """An object in a store, or the objects of a DICOM series in one folder."""

    root: str
    """URI of the store."""
    objects: tuple[StoredObject, ...]
    target: str
    dicom_seg: bool = False

    @property
    def place(self) -> str:
        """See Source."""
        first = self.objects[0].key
        return _store(self.root).child(first if len(self.objects) == 1 else str(PurePosixPath(first).parent))

    @property
    def slices(self) -> tuple[str, ...]:
        """See Source."""
        return tuple(_store(self.root).child(found.key) for found in self.objects if _is_dicom(found.key))

    def version(self) -> str:
        """See Source."""
        return _version_of(self.objects)

    def fetch(self, scratch: Path, version: str) -> Fetched:
        """See Source. An object that was replaced after it was listed is taken as it is now.

        Raises DataError where it is not one image.
        """
        store = _store(self.root)
        # Names of our own, for keys may be longer or odder than file systems allow.
        places = [scratch / f"{number:05}{_ending(listed.key)}" for number, listed in enumerate(self.objects)]
        found = [_fetch_current(store, listed, place) for listed, place in zip(self.objects, places, strict=True)]
        origins = {str(place): store.child(listed.key) for place, listed in zip(places, self.objects, strict=True)}
        images = find_images(scratch if _is_dicom(places[0].name) else places[0], dicom_seg=self.dicom_seg)
        if len(images) > 1:
            raise DataError(f"{self.place}: {len(images)} DICOM series in one folder; give each a folder of its own")
        return Fetched(images[0], _version_of(found), origins)


def find_sources(
    inputs: Sequence[str | Path], *, dicom_seg: bool = False, passed_over: Counter[str] | None = None
) -> Iterator[Source]:
    """Every image that `inputs` name; labels that one folder, pattern or list names along with their image are none.

    Args:
        inputs: NIfTI files, pictures, folders that are searched through, for DICOM series too, and prefixes
            `s3://BUCKET/PREFIX` (gs, az) likewise; patterns of any of these; and `.txt` files that list them. A file's
            labels get its name, those of a file in a folder or of a pattern its path from there.
        dicom_seg: labels of DICOM series are to be DICOM-SEG.
        passed_over: is told how many files were passed over as labels, by how they are known.

    Raises:
        MissingDataError: an input does not exist, or holds no image.
        ConfigError: an input is of no type that can be read, or a list is no text or lists itself.
        StorageError: a store or a list cannot be read.
    """
    for places in together(inputs):
        found: list[Source] = []
        for place in places:
            found += _in_store(place, dicom_seg) if is_uri(place) else _here(Path(place), dicom_seg)
        files = [PurePosixPath(source.place) for source in found if not source.slices]
        labels = labels_among(files, {PurePosixPath(file) for source in found for file in source.slices})
        if passed_over is not None:
            passed_over.update(labels.values())
        yield from (source for source in found if source.slices or PurePosixPath(source.place) not in labels)


def _here(given: Path, dicom_seg: bool) -> Iterator[Source]:
    if given.exists() or not has_magic(str(given)):
        for image in find_images(given, dicom_seg=dicom_seg):
            yield LocalSource(image, image.target.as_posix())
        return
    matches = sorted(Path(match) for match in glob(str(given), recursive=True))
    if not matches:
        raise MissingDataError(f"{given}: no file or folder is of this pattern")
    root = literal_folder(given.as_posix())
    for match in matches:
        folder = match if match.is_dir() else match.parent
        above = folder.relative_to(root) if root else folder
        for image in find_images(match, dicom_seg=dicom_seg):
            yield LocalSource(image, (above / image.target).as_posix())


def _in_store(given: str, dicom_seg: bool) -> Iterator[Source]:
    root, key = split_uri(given)
    store = _store(root)
    if _is_dicom(key) and not has_magic(key):
        raise ConfigError(f"{given}: a DICOM series is given by its folder")
    if key.lower().endswith(SUFFIXES) and (found := store.stat(key)):
        yield _source(root, (found,), key.rpartition("/")[2], dicom_seg)
        return
    base = key.rstrip("/")
    listed = list(store.list(_as_prefix(base)))
    if has_magic(key) and not listed:  # As here, what is really called so goes before what is of the pattern.
        base, wanted = literal_folder(key), pattern_of(key)
        listed = [
            found
            for found in store.list(_as_prefix(base))
            if any(map(wanted.fullmatch, (found.key, *_parents(found.key))))
        ]
    images = _images_among(listed)
    if not images:
        raise MissingDataError(f"{given}: no NIfTI file, picture or DICOM series (.dcm) of this name or below it")
    whole = (base or root).rpartition("/")[2]
    for objects in images:
        inside = objects[0].key.removeprefix(_as_prefix(base))
        if _is_dicom(inside):
            inside = inside.rpartition("/")[0] or whole
        yield _source(root, objects, inside, dicom_seg)


def _images_among(listed: Sequence[StoredObject]) -> list[tuple[StoredObject, ...]]:
    """Objects that are images, and DICOM files by folder; as in a folder, no hidden ones."""
    shown = [found for found in listed if not re.search(r"(^|/)\.[^./]", found.key)]
    images: list[tuple[StoredObject, ...]] = []
    series: dict[str, list[StoredObject]] = {}
    for found in shown:
        if _is_dicom(found.key):
            series.setdefault(found.key.rpartition("/")[0], []).append(found)
        elif found.key.lower().endswith(SUFFIXES):
            images.append((found,))
    return [*images, *(tuple(members) for members in series.values())]


def _source(root: str, objects: tuple[StoredObject, ...], inside: str, dicom_seg: bool) -> CloudSource:
    """With the key of its labels: a picture's are PNG, a series' one file of its folder's name."""
    if _is_dicom(objects[0].key):
        target = f"{inside}{'.dcm' if dicom_seg else '.nii.gz'}"
    elif pictures.is_picture(Path(inside)):
        target = f"{inside.removesuffix(Path(inside).suffix)}.png"
    else:
        target = inside
    return CloudSource(root, objects, target, dicom_seg)


def _fetch_current(store: Store, listed: StoredObject, to: Path) -> StoredObject:
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


def _as_prefix(folder: str) -> str:
    """Only what is below it: not `scans-old` for `scans`."""
    return f"{folder}/" if folder else ""


def _ending(key: str) -> str:
    return next((suffix for suffix in (*SUFFIXES, *DICOM_SUFFIXES) if key.lower().endswith(suffix)), "")


def _is_dicom(key: str) -> bool:
    return key.lower().endswith(DICOM_SUFFIXES)


@lru_cache(maxsize=32)
def _store(root: str) -> Store:
    """One client a process for each store."""
    return open_store(root)


def require_disjoint(inputs: Sequence[str | Path], sources: Sequence[Source], out: str) -> None:
    """Refuse to write where we read: sources would be overwritten, or labels taken for images the next time.

    Raises ConfigError.
    """
    given = list(without_lists(inputs))
    read = {_absolute(place) for place in given if is_uri(place) or Path(place).is_dir()}
    places = {_absolute(source.place) for source in sources}
    above_places = {folder for place in places for folder in (place, *_parents(place))}
    wild = [place for place in given if has_magic(place) and not Path(place).exists()]
    # In a store too what is really called so was taken by its name.
    patterns = [pattern_of(place) for place in map(_absolute, wild) if not (is_uri(place) and place in above_places)]
    for target in (out, *(f"{out}/{source.target}" for source in sources)):
        resolved = _absolute(target)
        above = {resolved, *_parents(resolved)}
        matched = any(pattern.fullmatch(place) for pattern in patterns for place in above)
        if resolved in places or read & above or matched:
            raise ConfigError(f"{target} lies in the input; choose an output folder outside of it")


def _absolute(place: str) -> str:
    """In the one way to write it; S3:// is s3://."""
    # Not Path.resolve, which takes no links that lead in a circle.
    return "/".join(split_uri(place)).rstrip("/") if is_uri(place) else os.path.realpath(place)


def _parents(place: str) -> Iterator[str]:
    while "/" in place:
        place = place.rpartition("/")[0]
        yield place or "/"
