"""Masks of another folder for the discriminator: classes as that folder names them, brought to this run's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from maag.config.codec import override
from maag.config.schema import Config, DataConfig
from maag.data.cache import Progress, prepare_cases
from maag.data.catalog import find_cases, reader_of
from maag.data.prepared import PreparedData
from maag.data.scribble_sources import OWN
from maag.errors import ConfigError, MissingDataError
from maag.labels import BACKGROUND


def prepare_shapes(
    dataset: str, folder: Path, data: DataConfig, cache_root: Path, progress: Progress | None = None
) -> PreparedData:
    """The masks in `folder`, prepared on the grid and with the class numbers of a run with the settings `data`.

    Its own classes are those that the layout `dataset`, or a description in the folder, names; they are matched with
    the run's by name, and what the run does not have is background. Scribbles and cases without a mask are left out.

    Raises:
        ConfigError: a class of the run is not there.
        MissingDataError: no such folder, or no mask in it.
        DataError: cases that would train wrongly, all of them in one error.
        StorageError: the cache cannot be written.
    """
    own = _settings_of(dataset, folder, data)
    cases = find_cases(own, folder, (OWN,))
    numbers = _matched(own.classes, data.classes, f"--shapes {folder}")
    masked = [replace(case, scribbles=()) for case in cases if case.masks]
    if not masked:
        raise MissingDataError(
            f"--shapes {folder}: none of its {len(cases)} cases has a mask, which the discriminator is to see; add "
            "masks, or give another folder"
        )
    return prepare_cases(masked, folder, own, cache_root, numbers=numbers, progress=progress)


def _settings_of(dataset: str, folder: Path, data: DataConfig) -> DataConfig:
    """The other folder's own settings, on the run's grid."""
    reader = reader_of(dataset)
    same_layout = {"data.classes": list(data.classes), "data.channels": data.channels}
    told = {
        "data.dataset": dataset,
        **reader.defaults,
        # In the run's own layout its --set says what the numbers are, unless the folder itself does.
        **(same_layout if dataset == data.dataset else {}),
        **reader.settings(folder),
        # No scribble is read, so its value is not needed, and one of other classes could not be right.
        "data.unlabelled_value": None,
    }
    own = override(Config(), told).data
    return replace(
        own,
        modality=data.modality,
        spacing_mm=data.spacing_mm,
        size_px=data.size_px,
        padding_label=data.padding_label,
    )


def _matched(theirs: Sequence[str], ours: Sequence[str], where: str) -> tuple[int, ...] | None:
    """Our number of each of their classes, the background's where we have none of that name; None where all agree."""
    if tuple(theirs) == tuple(ours):
        return None
    missing = [name for name in ours[1:] if name not in theirs[1:]]
    if missing:
        raise ConfigError(
            f"{where}: it has no class {', '.join(missing)}: its classes are {', '.join(theirs)}, this run's are "
            f"{', '.join(ours)}, and they are matched by name; give a folder that has all of the run's classes, or "
            "correct the names"
        )
    number_of = {name: number for number, name in enumerate(ours)}
    return (BACKGROUND, *(number_of.get(name, BACKGROUND) for name in theirs[1:]))
