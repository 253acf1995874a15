"""The run folder: the paths in it, and the rule that no run is overwritten."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from maag import checkpoint
from maag.config import codec
from maag.config.schema import Config
from maag.data.scribbles.raters import RaterAgreement, agreement_rows
from maag.data.splits import PARTS, Split
from maag.errors import ConfigError, MaagError, MissingDataError, SplitError
from maag.storage import read_json, require_writable_directory, write_json, write_text
from maag.train.second_stage.teachers import write_teachers


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run; the documentation describes the files."""

    path: Path

    @property
    def config(self) -> Path:
        """Every setting: `config.json`."""
        return self.path / "config.json"

    @property
    def split(self) -> Path:
        """The role of each patient: `split.json`."""
        return self.path / "split.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch and line: `metrics.jsonl`."""
        return self.path / "metrics.jsonl"

    @property
    def result(self) -> Path:
        """How training ended: `result.json`."""
        return self.path / "result.json"

    @property
    def raters(self) -> Path:
        """Agreement of the raters, if there are several: `raters.csv`."""
        return self.path / "raters.csv"

    @property
    def teachers(self) -> Path:
        """The finished models that teach, if any: `teachers.json`."""
        return self.path / "teachers.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files: `tensorboard/`."""
        return self.path / "tensorboard"

    @property
    def last(self) -> Path:
        """The whole training state: `checkpoints/last.pt`."""
        return self.path / "checkpoints" / checkpoint.LAST

    @property
    def best(self) -> Path:
        """The segmentor of the best validation: `checkpoints/best.safetensors`."""
        return self.path / "checkpoints" / checkpoint.BEST

    @property
    def final(self) -> Path:
        """The segmentor at the end: `checkpoints/final.safetensors`."""
        return self.path / "checkpoints" / checkpoint.FINAL

    def write_agreement(self, agreement: Sequence[RaterAgreement]) -> None:
        """Write `raters.csv`. Raises StorageError."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(agreement_rows(agreement))
        write_text(self.raters, text.getvalue())


def require_no_run(path: Path) -> None:
    """Raise ConfigError if `path` holds a run, or files that a run would replace, such as those of a search."""
    run = RunFolder(path)
    if run.config.exists():
        raise ConfigError(f"{path} already holds a run; add --resume to continue it, or choose another --out")
    _require_absent(path, (run.metrics, run.result, run.last, run.best, run.final))


def require_no_other_split(path: Path, split: Split) -> None:
    """Raise ConfigError if `path` has a split.json that differs from `split`.

    An equal one is accepted: a run may have been killed before it wrote its other files, or the user gave this file.
    """
    run = RunFolder(path)
    if not _holds(run.split, split):
        _require_absent(path, (run.split,))


def _require_absent(path: Path, files: Sequence[Path]) -> None:
    existing = next((file for file in files if file.exists()), None)
    if existing:
        raise ConfigError(
            f"{path} holds {existing.relative_to(path)}, which would be replaced; move it away, or choose another --out"
        )


def create_run(
    path: Path, config: Config, split: Split, teachers: Sequence[checkpoint.TrainedSegmentor] = ()
) -> RunFolder:
    """Create the folder of a new run at `path`.

    Raises:
        ConfigError: the folder holds another run, or files that this one would replace.
        StorageError: the folder cannot be written.
    """
    require_no_run(path)
    run = RunFolder(path)
    require_no_other_split(path, split)
    require_writable_directory(path / "checkpoints")
    write_json(run.split, split.to_dict())
    if teachers:
        write_teachers(run.teachers, teachers)
    write_json(run.config, codec.document(config))
    return run


def _holds(path: Path, split: Split) -> bool:
    with contextlib.suppress(MaagError):
        return Split.from_dict(read_json(path), str(path)) == split
    return False


def open_run(path: Path) -> tuple[RunFolder, Config]:
    """The run at `path` and its configuration. Raises MissingDataError if there is none."""
    run = RunFolder(path)
    if not run.config.is_file():
        raise MissingDataError(f"{path}: there is no run here to resume (no config.json); start without --resume")
    return run, codec.from_document(read_json(run.config), str(run.config))


def read_split(path: Path, patients: Collection[str], unused: Collection[str] = ("test",)) -> Split:
    """The split in the file `path`; all its patients but those of the `unused` parts must be among `patients`.

    Raises:
        DataError: the file is not a split, or was edited without removing its digest.
        SplitError: a patient is in two parts, or not among `patients`.
        StorageError: the file cannot be read.
    """
    split = Split.from_dict(read_json(path), str(path))
    needed = {patient for part in PARTS if part not in unused for patient in getattr(split, part)}
    absent = sorted(needed - set(patients))
    if absent:
        raise SplitError(
            f"{path}: {len(absent)} of its patients are not in the data, the first is {absent[0]}; "
            "restore them, or remove them and the digest from the split"
        )
    return split
