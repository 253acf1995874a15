"""Finished models as teachers of a student run: which are accepted, and the file that lists them.

A student trained on the soft labels of an identical network often becomes better than it (Furlanello et al., Born-Again
Neural Networks, ICML 2018). Several teachers are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maag.checkpoint import TrainedSegmentor, load_segmentor
from maag.config.schema import Config
from maag.data.splits import Split
from maag.errors import ConfigError, DataError, SplitError
from maag.storage import read_json, write_json

FORMAT_VERSION = 1
_SHARED_SETTINGS = ("classes", "channels", "modality", "spacing_mm", "normalization")
"""Settings of `data` that teacher and student must share."""


def open_teachers(models: Sequence[Path], config: Config, split: Split) -> tuple[TrainedSegmentor, ...]:
    """Load the teachers of a run.

    Args:
        models: run folders or weights files, see `load_segmentor`.
        config: the student's.
        split: the student's.

    Raises:
        ConfigError: `loss.teacher` is 0, or a model is for other images or classes.
        SplitError: a model was trained on another split: it may have seen patients who validate or test here.
        MissingDataError: there is no model at one of the paths.
        CheckpointError: a model is damaged.
    """
    if models and config.loss.teacher == 0:
        raise ConfigError(
            f"--teacher {models[0]}: loss.teacher is 0, so its soft labels would have no weight; use --preset best or "
            "best-fast, or --set loss.teacher=1 --set teacher.decay=0.99"
        )
    teachers = tuple(load_segmentor(model) for model in models)
    for teacher in teachers:
        _require_alike(teacher, config)
        _require_same_split(teacher, split)
    return teachers


def write_teachers(path: Path, teachers: Sequence[TrainedSegmentor]) -> None:
    """Write the paths and digests of a run's teachers to `path`, for a resume. Raises StorageError."""
    listed = [{"path": str(teacher.path.resolve()), "sha256": teacher.digest} for teacher in teachers]
    write_json(path, {"format_version": FORMAT_VERSION, "teachers": listed})


def read_teachers(path: Path) -> tuple[Path, ...]:
    """The paths of a run's teachers; none if there is no file at `path`.

    Raises:
        DataError: the file is not one that `write_teachers` wrote.
        StorageError: it cannot be read.
    """
    if not path.is_file():
        return ()
    content = read_json(path)
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{path}: format_version {content['format_version']} is unknown; this maag reads {FORMAT_VERSION}"
            )
        return tuple(Path(listed["path"]) for listed in content["teachers"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a list of teachers; name them with --teacher") from error


def _require_alike(teacher: TrainedSegmentor, config: Config) -> None:
    for name in _SHARED_SETTINGS:
        theirs, ours = getattr(teacher.config.data, name), getattr(config.data, name)
        if theirs != ours:
            raise ConfigError(
                f"--teacher {teacher.path}: it was trained with data.{name}={theirs}, and this run has {ours}; both "
                "must be equal, so give a teacher of the same preset, or change the setting"
            )


def _require_same_split(teacher: TrainedSegmentor, split: Split) -> None:
    theirs = teacher.info["split_digest"]
    if theirs != split.digest:
        raise SplitError(
            f"--teacher {teacher.path}: it was trained on split {theirs}, and this run has {split.digest}; it may have "
            "learnt from patients who validate or test here, so give the split.json of its run with --split-file"
        )
