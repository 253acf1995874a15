"""Errors shown to users: one sentence that names the thing, the value, the rule and the way out."""

from __future__ import annotations

from collections.abc import Collection

_NAMED_AT_MOST = 10


class MaagError(Exception):
    """Base of all errors shown to users without a traceback; `exit_code` is the exit code of the process."""

    exit_code = 1


class ConfigError(MaagError, ValueError):
    """A setting is unknown, has the wrong type or is out of range."""

    exit_code = 2


class MissingDataError(MaagError, FileNotFoundError):
    """No usable data set or model was found at a path."""

    exit_code = 2


class DataError(MaagError, ValueError):
    """A data file is invalid, or would make training or evaluation wrong."""


class SplitError(DataError):
    """Parts of a split overlap, or one of them has no patients."""


class StorageError(MaagError, OSError):
    """Reading or writing failed: disk full, permission denied, not a directory."""


class MissingObjectError(StorageError):
    """No object has this key, or no bucket has this name."""


class AccessDeniedError(StorageError):
    """The storage rejects the credentials, or there are none; retrying would not help."""


class ObjectChangedError(StorageError):
    """The object has changed since it was listed."""


class CheckpointError(MaagError):
    """A checkpoint is damaged, has another format version, or belongs to another configuration."""


class TrainingError(MaagError, ArithmeticError):
    """Training cannot continue."""


class NotFiniteError(TrainingError):
    """A loss or a weight became NaN or infinite."""


class DeviceMemoryError(TrainingError):
    """A training step does not fit into device memory; it may at another time, or on another node."""


class OutOfTimeError(TrainingError):
    """The time limit passed before the first step, so there is no model to save."""


class ExportError(MaagError):
    """A model or its engine cannot be exported, or the export does not agree with PyTorch."""


class PredictionError(MaagError):
    """A batch cannot continue: no worker is left."""


class SomeCasesFailed(MaagError):
    """Some cases failed; the rest are done."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """First non-empty line of a third-party error's message; the name of its type if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def names_of(cases: Collection[str]) -> str:
    """Up to ten of the names `cases`, separated by commas, and how many more there are."""
    more = f" and {len(cases) - _NAMED_AT_MOST} more" if len(cases) > _NAMED_AT_MOST else ""
    return ", ".join([*cases][:_NAMED_AT_MOST]) + more
