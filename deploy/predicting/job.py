"""What is asked for: the work on each volume, what is the same for all of them, and one volume to do."""

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
    """Write them too, as `NAME_probabilities.nii.gz`."""
    measures: bool = False
    """Write `measures.csv` in the end."""
    review: bool = False
    """Write `review.csv` in the end."""
    reorient: bool = False
    """Lay images as those that trained, and labels back."""
    dicom_seg: bool = False
    """Labels of a DICOM series are DICOM-SEG."""

    def identity(self, model_digest: str, data: DataConfig) -> str:
        """What decides the labels and their company: model and options, and rules that earlier versions had not."""
        options = (
            self.refinement.name,
            "probabilities" if self.probabilities else "",
            "dicom-seg" if self.dicom_seg else "",
            "reoriented" if self.reorient else "",
            # Labels of before that rule are those of another scale: --resume must not keep them.
            "own-extent" if has_own_extent(data) else "",
        )
        return "+".join([model_digest, *(option for option in options if option)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is the same for all volumes."""

    data: DataConfig
    """With which the model was trained."""
    work: Work
    model_digest: str
    out: str
    """The output: a folder or a URI."""
    shortfalls: Mapping[str, float] = field(default_factory=dict)
    """How far the model overrates itself, by class, see `maag.expected_dice`."""
    orientations: tuple[str, ...] = ()
    """Codes of the training images, such as `LPS`, the most frequent first; empty where unknown."""

    @property
    def folder(self) -> Path | None:
        """The output where it is a folder here."""
        return None if is_uri(self.out) else Path(self.out)

    @property
    def identity(self) -> str:
        """Of model and options, for the ledger."""
        return self.work.identity(self.model_digest, self.data)


class Task(NamedTuple):
    """One volume to do."""

    source: Source
    history: History = History()
    """What was done before, by the ledger."""


def probabilities_of(target: str) -> str:
    """Where the probabilities go of a volume whose labels go to `target`."""
    place = PurePath(target)
    return str(place.with_name(f"{stem_of(Path(place))}_probabilities.nii.gz"))
