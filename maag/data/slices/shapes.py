"""Masks from another folder for the discriminator: classes matched by name, and only of other patients."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from maag.config.codec import override
from maag.config.data import DataConfig
from maag.config.schema import Config
from maag.data.cache.prepared import SHAPES_KIND, PreparedCase, PreparedData
from maag.data.cache.preparing import Progress, prepare_cases
from maag.data.catalog import find_cases, reader_of
from maag.data.scribbles.sources import OWN
from maag.data.splits import PARTS, Split
from maag.errors import ConfigError, MissingDataError, SplitError
from maag.labels import BACKGROUND, IGNORE

_MIN_STRUCTURE_PIXELS = 20
"""Of a mask that is compared; masks of two patients may share fewer."""
_PARTS = 4
"""Parts of a slice along each side, whose means identify an image."""


def prepare_shapes(
    dataset: str, folder: Path, data: DataConfig, cache_root: Path, progress: Progress | None = None
) -> PreparedData:
    """The masks in `folder`, prepared on the grid and with the class numbers of a run with the settings `data`.

    The folder's classes, from the layout `dataset` or a description in the folder, are matched with the run's by name;
    those that the run does not have become background. Scribbles and cases without a mask are left out.

    Raises:
        ConfigError: the folder lacks a class of the run.
        MissingDataError: no such folder, or no mask in it.
        DataError: cases that cannot be trained on, all of them in one error.
        StorageError: the cache cannot be written.
    """
    own = _settings_of(dataset, folder, data)
    cases = find_cases(own, folder, (OWN,))
    numbers = _matched(own.classes, data.classes, f"--shapes {folder}")
    masked = [replace(case, scribbles=()) for case in cases if case.masks]
    if not masked:
        raise MissingDataError(
            f"--shapes {folder}: none of its {len(cases)} cases has a mask for the discriminator; add masks, or give "
            "another folder"
        )
    prepared = prepare_cases(masked, folder, own, cache_root, numbers=numbers, progress=progress)
    return replace(prepared, digest=f"{SHAPES_KIND}{prepared.digest}")


def _settings_of(dataset: str, folder: Path, data: DataConfig) -> DataConfig:
    """The other folder's settings, on the run's grid."""
    reader = reader_of(dataset)
    same_layout = {"data.classes": list(data.classes), "data.channels": data.channels}
    settings = {
        "data.dataset": dataset,
        **reader.defaults,
        # In the run's own layout the run's settings define the numbers, unless the folder itself does.
        **(same_layout if dataset == data.dataset else {}),
        **reader.settings(folder),
        # No scribble is read, and the run's value may be a class here.
        "data.unlabelled_value": None,
    }
    own = override(Config(), settings).data
    return replace(
        own,
        modality=data.modality,
        spacing_mm=data.spacing_mm,
        size_px=data.size_px,
        padding_label=data.padding_label,
        # These images are only compared with the run's, by `require_other_patients`.
        normalization=data.normalization,
    )


def _matched(theirs: Sequence[str], ours: Sequence[str], where: str) -> tuple[int, ...] | None:
    """Our number of each of their classes, background where we have none of that name; None where all agree."""
    if tuple(theirs) == tuple(ours):
        return None
    missing = [name for name in ours[1:] if name not in theirs[1:]]
    if missing:
        raise ConfigError(
            f"{where}: it has no class {', '.join(missing)}: its classes are {', '.join(theirs)}, this run's are "
            f"{', '.join(ours)}, and they are matched by name; give a folder with all of the run's classes, or correct "
            "the names"
        )
    number_of = {name: number for number, name in enumerate(ours)}
    return (BACKGROUND, *(number_of.get(name, BACKGROUND) for name in theirs[1:]))


def require_other_patients(prepared: PreparedData, split: Split, shapes: PreparedData) -> None:
    """Raise SplitError where `shapes` have a patient of another part of the `split` of `prepared`.

    Names do not match across folders, and saving a file again changes it, so prepared masks and images are compared as
    well as the digests of image files.
    """
    part_of = {patient: part for part in PARTS if part != "shapes" for patient in getattr(split, part)}
    known: dict[str, PreparedCase] = {}
    for case in prepared.cases:
        if case.patient_id in part_of:
            known.update(dict.fromkeys(_digests(prepared, case), case))
    same = {
        case.case_id: known[digest] for case in shapes.cases for digest in _digests(shapes, case) if digest in known
    }
    if same:
        case_id, other = next(iter(same.items()))
        raise SplitError(
            f"--shapes: its case {case_id} is case {other.case_id} of the data, whose patient is in "
            f"{part_of[other.patient_id]} of the split; {len(same)} of the {len(shapes.cases)} cases there are of such "
            "patients, but the discriminator may only see masks of others: leave --shapes out, so that the split gives "
            "shapes, remove these cases from that folder, or give another folder"
        )


def _digests(prepared: PreparedData, case: PreparedCase) -> list[str]:
    """What identifies a case, whatever its name: its image files, its image, and its mask if large enough."""
    found = [f"image file {case.sha256['image']}"]
    # Rounded means, as images computed elsewhere or stored in fewer bits differ in the last digits.
    image = torch.from_numpy(np.array(prepared.images[case.start : case.stop]))
    means = np.round(adaptive_avg_pool2d(image, _PARTS).numpy(), 2) + 0.0  # no -0.0
    if np.ptp(means) > 0:
        found.append(f"image {image.shape} {hashlib.sha256(means.tobytes()).hexdigest()}")
    mask = prepared.masks[case.start : case.stop]
    if case.has_mask and np.count_nonzero((mask != BACKGROUND) & (mask != IGNORE)) >= _MIN_STRUCTURE_PIXELS:
        found.append(f"mask {mask.shape} {hashlib.sha256(mask.tobytes()).hexdigest()}")
    return found
