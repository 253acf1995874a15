"""A run's folder: where everything of it lies, and the rule that no run is overwritten."""

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
    """Paths of one run; the README documents the format."""

    path: Path

    @property
    def config(self) -> Path:
        """Every setting: `config.json`."""
        return self.path / "config.json"

    @property
    def split(self) -> Path:
        """Which patients did what: `split.json`."""
        return self.path / "split.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line and epoch: `metrics.jsonl`."""
        return self.path / "metrics.jsonl"

    @property
    def result(self) -> Path:
        """How training ended: `result.json`."""
        return self.path / "result.json"

    @property
    def raters(self) -> Path:
        """How far the raters agree, if there are several: `raters.csv`."""
        return self.path / "raters.csv"

    @property
    def teachers(self) -> Path:
        """Which finished models teach, if any do: `teachers.json`."""
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
    """Raise ConfigError when a run was begun at `path`, or lies there what a run would replace, as of a search."""
    run = RunFolder(path)
    if run.config.exists():
        raise ConfigError(f"{path} already holds a run; add --resume to continue it, or choose another --out")
    _require_absent(path, (run.metrics, run.result, run.last, run.best, run.final))


def require_no_other_split(path: Path, split: Split) -> None:
    """Raise ConfigError when `path` has a split.json that is not of this `split`.

    The very same one may be of what was killed there between its first files, or given to what begins now.
    """
    run = RunFolder(path)
    if not _holds(run.split, split):
        _require_absent(path, (run.split,))


def _require_absent(path: Path, files: Sequence[Path]) -> None:
    there = next((file for file in files if file.exists()), None)
    if there:
        raise ConfigError(
            f"{path} holds {there.relative_to(path)}, which would be replaced; move it away, or choose another --out"
        )


def create_run(
    path: Path, config: Config, split: Split, teachers: Sequence[checkpoint.TrainedSegmentor] = ()
) -> RunFolder:
    """Begin a run at `path`.

    Raises:
        ConfigError: another run is there, or files that this one would replace.
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
    """A run that was begun before, and its configuration. Raises MissingDataError when there is none at `path`."""
    run = RunFolder(path)
    if not run.config.is_file():
        raise MissingDataError(f"{path}: there is no run here to resume (no config.json); start without --resume")
    return run, codec.from_document(read_json(run.config), str(run.config))


def read_split(path: Path, patients: Collection[str]) -> Split:
    """The split in the file `path`, all of whose patients must be among those that are there.

    Raises:
        DataError: the file is no split, or was edited without taking its digest out.
        SplitError: a patient stands in two parts, or is not there.
        StorageError: the file cannot be read.
    """
    split = Split.from_dict(read_json(path), str(path))
    needed = {patient for part in PARTS if part != "test" for patient in getattr(split, part)}
    absent = sorted(needed - set(patients))
    if absent:
        raise SplitError(
            f"{path}: {len(absent)} of its patients are not in the data, the first is {absent[0]}; "
            "restore them, or take them out of the split and its digest with them"
        )
    return split
