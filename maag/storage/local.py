"""A folder as a store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from maag.errors import AccessDeniedError, DataError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage import is_temporary, replacing, storage_errors
from maag.storage.digests import md5_of
from maag.storage.keys import readable_key, safe_key
from maag.storage.store import StoredObject

_CHUNK = 1 << 20


class LocalStore:
    """The files below `root`, by relative path; `root` need not exist before the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def uri(self) -> str:
        """The folder's path as given."""
        return str(self._root)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """See Store; symbolic links to files and folders are followed."""
        start, _, _ = prefix.rpartition("/")
        if start:
            readable_key(start)
        folder = self._root / start
        with _errors(folder):
            if not folder.exists():
                return
        yield from self._below(folder, f"{start}/" if start else "", prefix, (folder.resolve(),))

    def stat(self, key: str) -> StoredObject | None:
        """See Store."""
        path = self._path(key)
        with _errors(path):
            try:
                return _stored(key, path.stat()) if path.is_file() else None
            except FileNotFoundError:
                return None

    def fetch(self, key: str, to: Path, version: str | None = None) -> StoredObject:
        """See Store."""
        path = self._path(key)
        with self._reading(key, version) as (source, stored), replacing(to) as temporary:
            with temporary.open("wb") as target:
                while target.tell() <= (stored.size or 0) and (chunk := source.read(_CHUNK)):
                    target.write(chunk)
            _require_same(path, key, stored, os.fstat(source.fileno()), temporary.stat().st_size)
        return stored

    def put(self, source: Path, key: str) -> None:
        """See Store."""
        with storage_errors(source, "read"), source.open("rb") as content:
            path = self._path(safe_key(key))
            with _errors(path, "write"), replacing(path) as temporary, temporary.open("wb") as target:
                while chunk := content.read(_CHUNK):
                    target.write(chunk)

    def read_bytes(self, key: str) -> bytes:
        """See Store."""
        with self._reading(key, None) as (source, stored):
            content = source.read()
            _require_same(self._path(key), key, stored, os.fstat(source.fileno()), len(content))
        return content

    def read_start(self, key: str, count: int) -> bytes:
        """See Store."""
        with self._reading(key, None) as (source, _):
            return source.read(count)

    def write_bytes(self, key: str, content: bytes) -> None:
        """See Store."""
        path = self._path(safe_key(key))
        with _errors(path, "write"), replacing(path) as temporary:
            temporary.write_bytes(content)

    def md5_of(self, key: str) -> str | None:
        """See Store; computed from the file."""
        try:
            with self._reading(key, None) as (source, _):
                return md5_of(source).hexdigest()
        except MissingObjectError:
            return None

    def child(self, key: str) -> str:
        """See Store."""
        return str(self._root / key)

    def _below(self, folder: Path, start: str, prefix: str, ancestors: tuple[Path, ...]) -> Iterator[StoredObject]:
        with _errors(folder):
            # With a '/' after its name, a folder sorts like the keys of its files.
            entries = sorted((f"{start}{item.name}{'/' if item.is_dir() else ''}", item) for item in _entries(folder))
        for key, item in entries:
            if key.endswith("/"):
                real = Path(item.path).resolve() if item.is_symlink() else ancestors[-1] / item.name
                if (key.startswith(prefix) or prefix.startswith(key)) and real not in ancestors:
                    yield from self._below(Path(item.path), key, prefix, (*ancestors, real))
            elif key.startswith(prefix) and item.is_file() and not is_temporary(item.name):
                try:
                    yield _stored(key, item.stat())
                except FileNotFoundError:  # removed since the folder was read
                    continue

    @contextmanager
    def _reading(self, key: str, version: str | None) -> Iterator[tuple[BinaryIO, StoredObject]]:
        path = self._path(key)
        with _errors(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "this is a folder, not a file")
            with path.open("rb") as source:
                stored = _stored(key, os.fstat(source.fileno()))
                if version not in (None, stored.version):
                    raise ObjectChangedError(f"{path} has changed since it was listed; list it again")
                yield source, stored

    def _path(self, key: str) -> Path:
        readable_key(key)
        if "" in key.split("/"):
            raise DataError(f"the key {key!r} is refused: a part of it is empty; rename the object")
        path = self._root / key
        with _errors(path):
            if not path.resolve().is_relative_to(self._root.resolve()):
                raise DataError(f"{path} is refused: a link leads out of {self._root}; give the link's target instead")
        return path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:  # removed since its parent was read
        return []


def _stored(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key, status.st_size, f"{status.st_mtime_ns}-{status.st_size}")


def _require_same(path: Path, key: str, before: StoredObject, after: os.stat_result, size: int) -> None:
    if _stored(key, after) != before or size != before.size:
        raise ObjectChangedError(f"{path} changed while it was read; try again when no program writes to it")


@contextmanager
def _errors(path: Path, verb: str = "read") -> Iterator[None]:
    try:
        with storage_errors(path, verb):
            yield
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise MissingObjectError(f"cannot {verb} {path}: there is no such file") from error.__cause__
        if isinstance(error.__cause__, PermissionError):
            raise AccessDeniedError(str(error)) from error.__cause__
        raise
