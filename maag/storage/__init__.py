"""Atomic writes to disk: to a temporary name, then rename."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maag.errors import MaagError, StorageError

_SENTENCES = {
    errno.ENOSPC: "the disk is full; free some space or choose another place, what was written before is intact",
    errno.EFBIG: "the file would be larger than is allowed here; choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EACCES: "permission denied; choose a place you may write to",
    errno.EPERM: "permission denied; choose a place you may write to",
    errno.EROFS: "the file system is read-only; choose a place you may write to",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another place",
    errno.EEXIST: "a file of this name is in the way; choose another place",
}
_READING_SENTENCES = {
    errno.EACCES: "permission denied; ask for the right to read it",
    errno.EPERM: "permission denied; ask for the right to read it",
    errno.ENOTDIR: "a part of this path is a file, not a folder; correct the path",
    errno.ELOOP: "its links form a loop; remove them",
}

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST_START = 200
"""Bytes of the original name: with prefix and suffix, the name stays below the 255 that file systems allow."""


@contextmanager
def storage_errors(path: Path, verb: str = "write") -> Iterator[None]:
    """Turn an OSError into a StorageError.

    Raises:
        StorageError: `cannot VERB PATH: reason and way out`.
    """
    try:
        yield
    except MaagError:
        raise
    except OSError as error:
        sentences = _READING_SENTENCES if verb == "read" else _SENTENCES
        reason = sentences.get(error.errno or 0, (error.strerror or str(error) or type(error).__name__).splitlines()[0])
        if verb == "read" and error.errno == errno.ENOENT and path.is_symlink():
            reason = f"a broken link to {os.readlink(path)}; fetch its target, or remove the link"
        raise StorageError(f"cannot {verb} {path}: {reason}") from error


def require_regular_file(path: Path) -> int:
    """Size in bytes of a readable regular file; reading a pipe or a device could block for ever.

    Raises:
        StorageError: the file is missing, not a regular file, or not readable.
    """
    with storage_errors(path, "read"):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"cannot read {path}: it is a folder, a pipe or a device; give a regular file")
        path.open("rb").close()
    return found.st_size


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is renamed to `path` atomically, otherwise it is removed.

    Readers of `path` see the complete old file or the complete new file, also after a crash.

    Raises:
        StorageError: the folder cannot be created or written to, or the disk is full.
    """
    temporary = _temporary_beside(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            flush_to_disk(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def building_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it is renamed to `path`.

    If another process has created `path` meanwhile, its folder stays and this one is removed.

    Raises:
        StorageError: the folder cannot be created or written to, the disk is full, or `path` is `.` or ends in `..`.
    """
    if path.name in ("", ".."):
        raise StorageError(f"cannot write {path}: a folder given as {path} cannot be replaced; choose a new folder")
    temporary = _temporary_beside(path)
    with storage_errors(path):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.iterdir():
                flush_to_disk(file)
            try:
                os.rename(temporary, path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically as UTF-8; bytes of file names that are not UTF-8 are escaped as in JSON.

    Raises StorageError.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON; NaN is refused. Raises StorageError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse the JSON file `path`. Raises StorageError when it cannot be read or is not JSON."""
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        way_out = "save it as JSON in UTF-8, restore it or remove it"
        raise StorageError(f"cannot read {path}: it is not JSON ({error}); {way_out}") from error


def require_writable_directory(path: Path) -> Path:
    """Create the folder `path` and check that a file can be written in it, before hours of work.

    Raises StorageError.
    """
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{uuid.uuid4().hex[:8]}"
        try:
            probe.write_bytes(b"")
        finally:
            probe.unlink(missing_ok=True)
    return path


def require_writable_place(path: Path) -> None:
    """Check that `path` is a writable folder, or can become one; nothing is left there. Raises StorageError."""
    with storage_errors(path):
        existing = next((each for each in (path, *path.parents) if each.exists()), path)
        probe = existing / f".probe-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()


def require_empty_directory(path: Path) -> None:
    """Raise StorageError if `path` exists and is not an empty folder."""
    if not is_free(path):
        raise StorageError(f"cannot write {path}: it exists and is not empty; choose a new folder")


def is_free(path: Path) -> bool:
    """Whether `path` does not exist or is an empty folder. Raises StorageError."""
    with storage_errors(path):
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def is_temporary(name: str) -> bool:
    """Whether `name` is a temporary name of `replacing` or `building_directory`."""
    return _TEMPORARY.fullmatch(name) is not None


def _temporary_beside(path: Path) -> Path:
    start = path.name.encode("utf-8", "surrogateescape")[:_LONGEST_START].decode("utf-8", "ignore")
    return path.with_name(f".{start}.{uuid.uuid4().hex[:8]}.tmp")


def flush_to_disk(path: Path) -> None:
    """Flush a file to disk: a file renamed before that may be empty after a power failure. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
