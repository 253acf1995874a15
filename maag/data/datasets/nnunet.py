"""nnU-Net's raw folder: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, and Ts for the test."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maag.config.data import DataConfig
from maag.data.cases import Case, Mask, Part, ScribbleFile, patient_and_frame
from maag.data.datasets.grid_choice import choose_grid, count_channels
from maag.data.files.label_files import holds_label, load_image, load_label_file, stem_of, suffix_of
from maag.data.files.nifti import is_nifti
from maag.data.files.volume import Volume
from maag.errors import DataError, StorageError
from maag.storage import read_json

CHANNEL_NAME = re.compile(r"^(.+)_(\d{4})$")
"""Stems of image files: the case, and which of its channels."""
_IGNORE = "ignore"
_FOLDERS: tuple[tuple[str, str, Part], ...] = (("imagesTr", "labelsTr", "train"), ("imagesTs", "labelsTs", "test"))


class NnunetReader:
    """Where the description names `ignore`, a label file that has it anywhere is a scribble; every other is a mask.

    A case is a patient, but for CASE_frame01 and CASE_frame12, which are two volumes of one.
    """

    layout = "dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, and if you like imagesTs and labelsTs"
    defaults: Mapping[str, Any] = {}
    in_presets: Mapping[str, Mapping[str, Any]] = {}
    split0: Mapping[str, frozenset[str]] | None = None
    usual_scribbles = "own"

    def settings(self, directory: Path) -> Mapping[str, Any]:
        """Classes, unlabelled value, channels, and a grid for the images.

        Raises DataError for regions, numbers that are none, an `ignore` that is not the last label, or labels with a
        gap.
        """
        root = _root(directory)
        if root is None:
            return {}
        path = root / "dataset.json"
        described = _described(root)
        labels = _numbers(described["labels"], path)
        ignore = labels.pop(_IGNORE, None)
        classes = sorted(labels, key=lambda name: labels[name])
        if [labels[name] for name in classes] != list(range(len(classes))):
            raise DataError(
                f"{path}: labels {sorted(labels.values())} must be 0 to {len(classes) - 1} without a gap; renumber them"
            )
        if ignore is not None and ignore != len(classes):
            raise DataError(f'{path}: "ignore" is {ignore}, it must be the last label, {len(classes)}; renumber it')
        images = sorted(path for path in (root / "imagesTr").glob("*") if suffix_of(path))
        firsts = [path for path in images if _channel_of(path) == 0]
        return {
            "data.classes": classes,
            "data.unlabelled_value": len(classes),
            "data.channels": _num_channels(images, firsts, described),
            **(choose_grid(firsts) if firsts else {}),
        }

    def find_cases(self, directory: Path, data: DataConfig) -> tuple[Case, ...]:
        """See Reader."""
        root = _root(directory)
        if root is None:
            return ()
        undrawn = (data.unlabelled_value or data.num_classes) if _IGNORE in _described(root)["labels"] else None
        cases = [case for folders in _FOLDERS for case in _cases_in(root, *folders, undrawn)]
        return tuple(sorted(cases, key=lambda case: case.case_id))

    def load_volume(self, case: Case) -> Volume:
        """See Reader."""
        return load_image(case.images)

    def load_mask(self, case: Case, data: DataConfig) -> Mask:
        """See Reader."""
        return Mask(load_label_file(case.masks[0], range(data.num_classes)))

    def write_phantom(self, out: Path, num_cases: int, seed: int) -> None:
        """See Reader."""
        from maag.data.phantoms.plain import write_nnunet

        write_nnunet(out, num_cases, seed)


def _root(directory: Path) -> Path | None:
    """The folder itself, or the one data set below it."""
    here = directory / "dataset.json"
    found = [here] if here.is_file() else sorted(directory.glob("*/dataset.json"))
    if len(found) > 1:
        raise DataError(f"{directory}: holds {len(found)} data sets, the first is {found[0].parent.name}; name one")
    return found[0].parent if found else None


def _described(root: Path) -> dict[str, Any]:
    """What dataset.json says; its "labels" are by name, as in nnU-Net's second version."""
    path = root / "dataset.json"
    described = read_json(path)
    labels = described.get("labels") if isinstance(described, dict) else None
    if isinstance(labels, dict) and "background" not in labels:
        labels = _by_name(labels, path)
    if not isinstance(labels, dict) or not _is_number(labels.get("background")) or int(labels["background"]) != 0:
        raise DataError(
            f'{path}: "labels" must name "background": 0 and the other classes, or "0": "background" as nnU-Net\'s '
            "first version; correct it"
        )
    return {**described, "labels": labels}


def _by_name(labels: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Labels as nnU-Net's first version has them, names by number, turned round; empty where they are not such."""
    if not all(_is_number(value) and isinstance(name, str) for value, name in labels.items()):
        return {}
    by_name: dict[str, Any] = {}
    for value, name in labels.items():
        if name in by_name:
            raise DataError(f"{path}: labels {by_name[name]} and {value} are both called {name!r}; name each its own")
        by_name[name] = value
    return by_name


def _is_number(value: Any) -> bool:
    """Whether it is a label's number, which some write as text."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdecimal())


def _numbers(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    """The number of each label. Raises DataError for regions and for what is no number."""
    for name, value in labels.items():
        if isinstance(value, list):
            raise DataError(
                f"{path}: label {name!r} is a region ({value}); maag learns one class for each pixel: write the label "
                "files with one number for each class"
            )
        if not _is_number(value):
            raise DataError(f"{path}: label {name!r} has {json.dumps(value)}, which is no whole number; correct it")
    return {name: int(value) for name, value in labels.items()}


def _channel_of(path: Path) -> int | None:
    match = CHANNEL_NAME.match(stem_of(path))
    return int(match[2]) if match else None


def _num_channels(images: list[Path], firsts: list[Path], described: Mapping[str, Any]) -> int:
    names = described.get("channel_names") or described.get("modality") or {}
    named = len(names) if isinstance(names, dict | list) else 1
    if firsts and not is_nifti(firsts[0]):
        # A colour picture holds all of its channels in the one file.
        in_file = count_channels(firsts)
        if in_file > 1:
            return in_file
    return max(1, named, *(1 + (_channel_of(path) or 0) for path in images[:64])) if images else 1


def _cases_in(root: Path, images: str, labels: str, part: Part, undrawn: int | None) -> list[Case]:
    """`undrawn` is what stands in a scribble where nothing was drawn; None where all label files are masks."""
    label_files: dict[str, list[Path]] = {}
    for path in sorted((root / labels).glob("*")):
        if suffix_of(path):
            label_files.setdefault(stem_of(path), []).append(path)
    by_case: dict[str, list[Path]] = {}
    for path in sorted((root / images).glob("*")):
        match = CHANNEL_NAME.match(stem_of(path)) if suffix_of(path) else None
        if match:
            by_case.setdefault(match[1], []).append(path)
    cases = []
    for name, files in by_case.items():
        channels = [_channel_of(path) for path in files]
        if len(set(channels)) < len(channels):
            first, second = next(
                (files[channels.index(channel)], path)
                for place, (path, channel) in enumerate(zip(files, channels, strict=True))
                if channel in channels[:place]
            )
            raise DataError(
                f"case {name} is there in two file types or twice, as {first} and {second}; keep one of them"
            )
        there = label_files.get(name, [])
        if len(there) > 1:
            raise DataError(f"case {name} has two label files, {there[0]} and {there[1]}; keep one of them")
        label = there[0] if there else None
        drawn = label is not None and undrawn is not None and _is_drawn(label, undrawn)
        cases.append(
            Case(
                case_id=name,
                patient_id=patient_and_frame(name)[0],
                frame=part,
                images=tuple(files),
                masks=(label,) if label and not drawn else (),
                scribbles=(ScribbleFile(rater="labels", path=label),) if label and drawn else (),
                part=part,
            )
        )
    return cases


def _is_drawn(path: Path, undrawn: int) -> bool:
    """Whether something in it is ignored. What cannot be read is named when the case is."""
    try:
        return holds_label(path, undrawn)
    except (DataError, StorageError):
        return False
