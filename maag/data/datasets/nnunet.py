"""nnU-Net's raw folder: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, and Ts for testing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maag.config.data import DataConfig
from maag.data.cases import Case, Mask, Part, ReaderDefaults, ScribbleFile, patient_and_frame
from maag.data.datasets.grid_choice import choose_grid, count_channels
from maag.data.files.label_files import holds_label, load_image, load_label_file, stem_of, suffix_of
from maag.data.files.nifti import is_nifti
from maag.data.files.volume import Volume
from maag.errors import DataError, StorageError
from maag.storage import read_json

CHANNEL_NAME = re.compile(r"^(.+)_(\d{4})$")
"""Stems of image files: case and channel."""
_IGNORE = "ignore"
_FOLDERS: tuple[tuple[str, str, Part], ...] = (("imagesTr", "labelsTr", "train"), ("imagesTs", "labelsTs", "test"))


class NnunetReader(ReaderDefaults):
    """Label files that contain the label `ignore` of dataset.json are scribbles; all others are masks.

    Each case is a patient, except that CASE_frame01 and CASE_frame12 are two volumes of one.
    """

    layout = "dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, and optionally imagesTs and labelsTs"
    defaults: Mapping[str, Any] = {}

    def settings(self, directory: Path) -> Mapping[str, Any]:
        """Classes, unlabelled value, channels, and a grid for the images.

        Raises DataError for regions, for labels that are no whole numbers or have a gap, and for an `ignore` that is
        not the last label.
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
        ignore = (data.unlabelled_value or data.num_classes) if _IGNORE in _described(root)["labels"] else None
        cases = [case for folders in _FOLDERS for case in _cases_in(root, *folders, ignore)]
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
    """The content of dataset.json, with "labels" by name as in nnU-Net's second version."""
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
    """Invert labels of nnU-Net's first version, which are names by number; empty for anything else."""
    if not all(_is_number(value) and isinstance(name, str) for value, name in labels.items()):
        return {}
    by_name: dict[str, Any] = {}
    for value, name in labels.items():
        if name in by_name:
            raise DataError(
                f"{path}: labels {by_name[name]} and {value} are both called {name!r}; give each its own name"
            )
        by_name[name] = value
    return by_name


def _is_number(value: Any) -> bool:
    """Whether it is a whole number, or one written as text."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdecimal())


def _numbers(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    """The number of each label. Raises DataError for regions and for values that are no whole number."""
    for name, value in labels.items():
        if isinstance(value, list):
            raise DataError(
                f"{path}: label {name!r} is a region ({value}); maag learns one class per pixel: save label files with "
                "one number per class"
            )
        if not _is_number(value):
            raise DataError(f"{path}: label {name!r} is {json.dumps(value)}, which is no whole number; correct it")
    return {name: int(value) for name, value in labels.items()}


def _channel_of(path: Path) -> int | None:
    match = CHANNEL_NAME.match(stem_of(path))
    return int(match[2]) if match else None


def _num_channels(images: list[Path], firsts: list[Path], described: Mapping[str, Any]) -> int:
    names = described.get("channel_names") or described.get("modality") or {}
    named = len(names) if isinstance(names, dict | list) else 1
    if firsts and not is_nifti(firsts[0]):
        # A colour picture has all of its channels in one file.
        in_file = count_channels(firsts)
        if in_file > 1:
            return in_file
    return max(1, named, *(1 + (_channel_of(path) or 0) for path in images[:64])) if images else 1


def _cases_in(root: Path, images: str, labels: str, part: Part, ignore: int | None) -> list[Case]:
    """`ignore` is the label of unlabelled voxels in scribbles; None where all label files are masks."""
    label_files: dict[str, list[Path]] = {}
    for path in sorted((root / labels).glob("*")):
        if suffix_of(path):
            label_files.setdefault(stem_of(path), []).append(path)
    by_case: dict[str, list[Path]] = {}
    for path in sorted(path for path in (root / images).glob("*") if suffix_of(path)):
        match = CHANNEL_NAME.match(stem_of(path))
        if match is None:
            raise DataError(
                f"{path}: its name has no channel, so it is no image of nnU-Net's; name it {stem_of(path)}_0000"
                f"{suffix_of(path)}, or remove it"
            )
        by_case.setdefault(match[1], []).append(path)
    alone = next((name for name in label_files if by_case and name not in by_case), None)
    if alone is not None:
        raise DataError(
            f"{label_files[alone][0]}: there is no image {alone}_0000 in {images}/; restore it, or remove the labels"
        )
    cases = []
    for name, files in by_case.items():
        channels = [_channel_of(path) for path in files]
        if len(set(channels)) < len(channels):
            first, second = next(
                (files[channels.index(channel)], path)
                for place, (path, channel) in enumerate(zip(files, channels, strict=True))
                if channel in channels[:place]
            )
            raise DataError(f"case {name} has two files of one channel, {first} and {second}; keep one of them")
        labels_of_case = label_files.get(name, [])
        if len(labels_of_case) > 1:
            both = f"{labels_of_case[0]} and {labels_of_case[1]}"
            raise DataError(f"case {name} has two label files, {both}; keep one of them")
        label = labels_of_case[0] if labels_of_case else None
        is_scribble = label is not None and ignore is not None and _is_scribble(label, ignore)
        cases.append(
            Case(
                case_id=name,
                patient_id=patient_and_frame(name)[0],
                frame=part,
                images=tuple(files),
                masks=(label,) if label and not is_scribble else (),
                scribbles=(ScribbleFile(rater="labels", path=label),) if label and is_scribble else (),
                part=part,
            )
        )
    return cases


def _is_scribble(path: Path, ignore: int) -> bool:
    """Whether the file has the label `ignore`; False for unreadable files, which are reported with their case."""
    try:
        return holds_label(path, ignore)
    except (DataError, StorageError):
        return False
