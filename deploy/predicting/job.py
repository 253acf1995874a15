"""A batch: the work on each volume, the settings that all volumes share, and the task for one volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from deploy.inputs.channel_files import has_own_extent
from deploy.inputs.source_kinds import Source
from deploy.predicting.ledger import History
from maag.config.data import DataConfig
from maag.data.files.label_files import stem_of
from maag.inference import PLAIN, Refinement
from maag.storage.keys import is_uri


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What to do with each volume."""

    refinement: Refinement = PLAIN
    probabilities: bool = False
    """Also write `NAME_probabilities.nii.gz`."""
    measures: bool = False
    """Write `measures.csv` at the end."""
    review: bool = False
    """Write `review.csv` at the end."""
    reorient: bool = False
    """Reorient images like the training images, and their labels back."""
    dicom_seg: bool = False
    """Write labels of a DICOM series as DICOM-SEG."""

    def identity(self, model_digest: str, data: DataConfig) -> str:
        """Everything that determines the output files: the model, the options, and rules new since earlier versions."""
        options = (
            self.refinement.name,
            "probabilities" if self.probabilities else "",
            "dicom-seg" if self.dicom_seg else "",
            "reoriented" if self.reorient else "",
            # Labels from before this rule are on another scale: --resume must not keep them.
            "own-extent" if has_own_extent(data) else "",
        )
        return "+".join([model_digest, *(option for option in options if option)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Settings that all volumes share."""

    data: DataConfig
    """The data settings that the model was trained with."""
    work: Work
    model_digest: str
    out: str
    """Output folder or URI."""
    shortfalls: Mapping[str, float] = field(default_factory=dict)
    """How much the model overestimates its Dice, by class, see `maag.expected_dice`."""
    orientations: tuple[str, ...] = ()
    """Codes of the training images, such as `LPS`, the most frequent first; empty where unknown."""

    @property
    def folder(self) -> Path | None:
        """The output folder; None if the output is a URI."""
        return None if is_uri(self.out) else Path(self.out)

    @property
    def identity(self) -> str:
        """Identity of model and options, for the ledger."""
        return self.work.identity(self.model_digest, self.data)


class Task(NamedTuple):
    """One volume to segment."""

    source: Source
    history: History = History()
    """Earlier attempts, by the ledger."""


def probabilities_of(target: str) -> str:
    """Path of the probabilities next to the labels `target`."""
    path = PurePath(target)
    return str(path.with_name(f"{stem_of(Path(path))}_probabilities.nii.gz"))
