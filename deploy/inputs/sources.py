"""Find the images to predict in files, folders, patterns, lists and prefixes of buckets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, MutableMapping, Sequence
from glob import glob, has_magic
from pathlib import Path, PurePosixPath

from deploy.inputs.bucket_series import series_among
from deploy.inputs.channel_joining import join_channels
from deploy.inputs.foreign import FOREIGN, is_foreign
from deploy.inputs.images import find_images
from deploy.inputs.input_lists import together
from deploy.inputs.passed_over import labels_among
from deploy.inputs.patterns import literal_folder, parents, pattern_of
from deploy.inputs.source_kinds import CloudSource, LocalSource, Source, is_dicom, store_of
from maag.config.data import DataConfig
from maag.data.files import pictures
from maag.data.files.label_files import SUFFIXES
from maag.errors import ConfigError, MissingDataError
from maag.storage.keys import is_uri, split_uri
from maag.storage.store import StoredObject


def find_sources(
    inputs: Sequence[str | Path],
    *,
    dicom_seg: bool = False,
    data: DataConfig | None = None,
    passed_over: MutableMapping[str, str] | None = None,
) -> Iterator[Source]:
    """Every image in `inputs`, except labels found in the same folder, pattern or list as their image.

    Args:
        inputs: NIfTI files; pictures; folders and prefixes `s3://BUCKET/PREFIX` (gs, az), which are searched
            recursively, also for DICOM series; patterns of any of these; and `.txt` files that list them. Labels get
            the name of a file, or for a folder or pattern its path from there.
        dicom_seg: write labels of DICOM series as DICOM-SEG.
        data: settings of the model; if it takes several channels, files of one image, X_0000 and X_0001, are one
            source. None for a model of one channel.
        passed_over: gets the files passed over as labels, each with the reason, or as FOREIGN.

    Raises:
        MissingDataError: an input does not exist, or contains no image.
        ConfigError: the type of an input is not supported, or a list is not text or lists itself.
        StorageError: a store or a list cannot be read.
    """
    found = _images_among(inputs, dicom_seg, {} if passed_over is None else passed_over)
    yield from found if data is None else join_channels(found, data, passed_over)


def _images_among(
    inputs: Sequence[str | Path], dicom_seg: bool, passed_over: MutableMapping[str, str]
) -> Iterator[Source]:
    """Every file and series except labels, unless these are given explicitly."""
    taken: set[str] = set()
    labels: dict[str, str] = {}
    foreign: list[str] = []
    for places in together(inputs):
        found: list[Source] = []
        for place in places:
            found += _in_store(place, dicom_seg, foreign) if is_uri(place) else _local(Path(place), dicom_seg, foreign)
        files = [PurePosixPath(source.place) for source in found if not source.slices]
        slices = {PurePosixPath(file) for source in found for file in source.slices}
        reasons = labels_among(files, slices, _root_of(places, found))
        for source in found:
            reason = None if source.slices else reasons.get(PurePosixPath(source.place))
            if reason:
                labels[source.place] = reason
            else:
                taken.add(source.place)
                yield source
    passed_over.update({place: reason for place, reason in labels.items() if place not in taken})
    passed_over.update(dict.fromkeys(foreign, FOREIGN))


def _root_of(places: Sequence[str], found: Sequence[Source]) -> PurePosixPath | None:
    """The common folder of everything given: folders, patterns up to the first wildcard, and items of a list."""
    known = {PurePosixPath(source.place): not source.slices for source in found}
    roots = []
    for place in places:
        given = PurePosixPath("/".join(split_uri(place)) if is_uri(place) else place)
        if known.get(given):
            roots.append(given.parent)
        elif has_magic(place) and not any(given in (path, *path.parents) for path in known):
            roots.append(PurePosixPath(literal_folder(given.as_posix())))
        else:
            roots.append(given)
    if not roots or len({root.is_absolute() for root in roots}) > 1:
        return None
    return PurePosixPath(os.path.commonpath(roots))


def _local(given: Path, dicom_seg: bool, foreign: list[str]) -> Iterator[Source]:
    if given.exists() or not has_magic(str(given)):
        for image in find_images(given, dicom_seg=dicom_seg, foreign=foreign):
            yield LocalSource(image, image.target.as_posix())
        return
    matches = sorted(Path(match) for match in glob(str(given), recursive=True))
    if not matches:
        raise MissingDataError(f"{given}: no file or folder matches this pattern")
    root = literal_folder(given.as_posix())
    unread = {match for match in matches if match.is_file() and is_foreign(match.name)}
    if len(unread) < len(matches):  # otherwise find_images refuses the first
        foreign += sorted(map(str, unread))
        matches = [match for match in matches if match not in unread]
    for match in matches:
        folder = match if match.is_dir() else match.parent
        above = folder.relative_to(root) if root else folder
        for image in find_images(match, dicom_seg=dicom_seg, foreign=foreign):
            yield LocalSource(image, (above / image.target).as_posix())


def _in_store(given: str, dicom_seg: bool, foreign: list[str]) -> Iterator[Source]:
    root, key = split_uri(given)
    store = store_of(root)
    if is_dicom(key) and not has_magic(key):
        raise ConfigError(f"{given}: for a DICOM series give its folder")
    if is_foreign(key) and not has_magic(key) and store.stat(key):
        raise ConfigError(f"{given}: {FOREIGN}; convert it to .nii.gz")
    if key.lower().endswith(SUFFIXES) and (found := store.stat(key)):
        yield _source(root, found, key.rpartition("/")[2])
        return
    base = key.rstrip("/")
    listed = list(store.list(_as_prefix(base)))
    if has_magic(key) and not listed:  # as for files, a literal name takes precedence
        base, wanted = literal_folder(key), pattern_of(key)
        listed = [
            found
            for found in store.list(_as_prefix(base))
            if any(map(wanted.fullmatch, (found.key, *parents(found.key))))
        ]
    # Without hidden ones, as in a folder.
    shown = [found for found in listed if not re.search(r"(^|/)\.[^./]", found.key)]
    files = [found for found in shown if found.key.lower().endswith(SUFFIXES)]
    series = series_among([found for found in shown if is_dicom(found.key)], store)
    unread = [store.child(found.key) for found in shown if is_foreign(found.key)]
    if not files and not series:
        way_out = f"; {unread[0]} is {FOREIGN}: convert it to .nii.gz" if unread else ""
        raise MissingDataError(
            f"{given}: no NIfTI file, picture or DICOM series (.dcm) with this name or below it{way_out}"
        )
    foreign += unread
    for found in files:
        yield _source(root, found, found.key.removeprefix(_as_prefix(base)))
    whole, ending = (base or root).rpartition("/")[2], ".dcm" if dicom_seg else ".nii.gz"
    for one in series:
        above = _as_prefix(one.folder).removeprefix(_as_prefix(base))
        target = f"{above}{one.name}" if one.name else above.removesuffix("/") or whole
        yield CloudSource(root, one.objects, f"{target}{ending}", dicom_seg, even=one.even)


def _source(root: str, found: StoredObject, inside: str) -> CloudSource:
    """The source of one object; labels of a picture are PNG."""
    is_picture = pictures.is_picture(Path(inside))
    return CloudSource(root, (found,), f"{inside.removesuffix(Path(inside).suffix)}.png" if is_picture else inside)


def _as_prefix(folder: str) -> str:
    """The folder with a final slash, so that `scans` does not match `scans-old`."""
    return f"{folder}/" if folder else ""
