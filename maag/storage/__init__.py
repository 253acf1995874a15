"""Writing to disk so that nothing is lost: to a temporary name, then rename."""

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
    errno.ELOOP: "its links lead in a circle; remove them",
}

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST_START = 200
"""Bytes: with what is added, the name stays below the 255 that file systems take."""


@contextmanager
def storage_errors(path: Path, verb: str = "write") -> Iterator[None]:
    """Turn an OSError, or torch's and safetensors' wrapping of one, into a StorageError's sentence.

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
            reason = f"a link to {os.readlink(path)}, where nothing is; fetch what it stands for, or remove it"
        raise StorageError(f"cannot {verb} {path}: {reason}") from error


def require_regular_file(path: Path) -> int:
    """The size in bytes of a file that can be read; a pipe or a device could keep its reader waiting for ever.

    Raises:
        StorageError: there is none, it is no regular file, or it may not be read.
    """
    with storage_errors(path, "read"):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"cannot read {path}: it is a folder, a pipe or a device; give a regular file")
        path.open("rb").close()
    return found.st_size


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path` atomically, else it is removed.

    The reader of `path` sees the old file whole or the new file whole, also after a crash.

    Raises:
        StorageError: the folder cannot be made or written, or the disk is full.
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
    """Yield an empty temporary folder beside `path`; on success it becomes `path` in one rename.

    When another process has put its own folder at `path` meanwhile, theirs stays and ours is removed.

    Raises:
        StorageError: the folder cannot be made or written, or the disk is full.
    """
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
    """Write `text` to `path` atomically as UTF-8. Raises StorageError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    """Make the folder `path` and prove that a file can be written in it, before hours of work. Raises StorageError."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{uuid.uuid4().hex[:8]}"
        try:
            probe.write_bytes(b"")
        finally:
            probe.unlink(missing_ok=True)
    return path


def require_writable_place(path: Path) -> None:
    """Prove that `path` is a folder to write in, or can become one, and leave nothing there. Raises StorageError."""
    with storage_errors(path):
        there = next((each for each in (path, *path.parents) if each.exists()), path)
        probe = there / f".probe-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()


def require_empty_directory(path: Path) -> None:
    """Raise StorageError when something is at `path` already, other than an empty folder."""
    if not is_free(path):
        raise StorageError(f"cannot write {path}: it is there and not empty; choose a new folder")


def is_free(path: Path) -> bool:
    """Whether nothing is at `path`, or an empty folder. Raises StorageError."""
    with storage_errors(path):
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one that `replacing` or `building_directory` has not finished."""
    return _TEMPORARY.fullmatch(name) is not None


def _temporary_beside(path: Path) -> Path:
    start = path.name.encode("utf-8", "surrogateescape")[:_LONGEST_START].decode("utf-8", "ignore")
    return path.with_name(f".{start}.{uuid.uuid4().hex[:8]}.tmp")


def flush_to_disk(path: Path) -> None:
    """Wait until a file is on the disk: what is renamed before is empty after a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
