"""Every error a user can meet: one sentence that names the thing, the value, the rule and the way out."""

from __future__ import annotations

from collections.abc import Collection

_NAMED_AT_MOST = 10


class MaagError(Exception):
    """Base of all errors shown to users without a traceback; `exit_code` is the process's."""

    exit_code = 1


class ConfigError(MaagError, ValueError):
    """A setting is unknown, of the wrong type or out of its limits."""

    exit_code = 2


class MissingDataError(MaagError, FileNotFoundError):
    """Nothing usable lies where a data set or a model was looked for."""

    exit_code = 2

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DataError(MaagError, ValueError):
    """A file of a data set would train or evaluate wrongly."""


class SplitError(DataError):
    """A split overlaps, or leaves a part without patients."""


class StorageError(MaagError, OSError):
    """Reading or writing failed: disk full, permission denied, not a directory."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingObjectError(StorageError):
    """There is no object of this key, or no bucket of this name."""


class AccessDeniedError(StorageError):
    """The storage refuses these credentials, or there are none; to ask again would not help."""


class ObjectChangedError(StorageError):
    """The object is not the one that was listed."""


class CheckpointError(MaagError):
    """A checkpoint is damaged, of another format version, or of another configuration."""


class TrainingError(MaagError, ArithmeticError):
    """Training cannot go on."""


class NotFiniteError(TrainingError):
    """A loss or a weight became NaN or infinite."""


class DeviceMemoryError(TrainingError):
    """A training step does not fit into the device's memory; it may at another time, or on another node."""


class OutOfTimeError(TrainingError):
    """The time limit passed before the first step: there is nothing yet that one could have."""


class ExportError(MaagError):
    """An exported model does not agree with the model it came from."""


class PredictionError(MaagError):
    """A batch cannot go on: no worker is left."""


class SomeCasesFailed(MaagError):
    """Some cases failed, the rest are done."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """What an error that is not ours says, without the lines that its own programmers need; its kind if it is mute."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def names_of(cases: Collection[str]) -> str:
    """The names of `cases`, for a sentence: not more than ten, and how many there are else."""
    more = f" and {len(cases) - _NAMED_AT_MOST} more" if len(cases) > _NAMED_AT_MOST else ""
    return ", ".join([*cases][:_NAMED_AT_MOST]) + more
