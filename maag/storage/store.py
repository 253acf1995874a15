"""One small protocol for folders and buckets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store knows about one object without reading it."""

    key: str
    """Relative to the store's root, parts divided by '/'."""
    size: int | None
    """Bytes."""
    version: str
    """Changes when the content does: an ETag, a generation, or 'MTIME_NS-SIZE' of a local file."""


class Store(Protocol):
    """A folder or a part of a bucket; may be pickled, and used by many threads at once.

    Every method raises, beside what it says: AccessDeniedError at once where the credentials do not suffice;
    MissingObjectError where the bucket or the object is not there; DataError for a key that leads elsewhere;
    StorageError for everything else, after a bounded number of attempts.
    """

    @property
    def uri(self) -> str:
        """For people: `s3://bucket/prefix`, or the folder's path."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects whose keys start with `prefix`, in key order, page by page as they are asked for.

        Left out are unfinished files of our own, and the empty objects `…/` that stand for folders.
        """

    def stat(self, key: str) -> StoredObject | None:
        """The object, or None only where it is really not there."""

    def fetch(self, key: str, to: Path, version: str | None = None) -> StoredObject:
        """Copy the whole object to the local file `to`, or raise and leave no file.

        Raises:
            ObjectChangedError: the object is not of that `version`, or changed meanwhile.
        """

    def put(self, source: Path, key: str) -> None:
        """Copy a local file to the store, whole or not at all, together with its MD5."""

    def read_bytes(self, key: str) -> bytes:
        """The whole content of a small object."""

    def read_start(self, key: str, count: int) -> bytes:
        """The first `count` bytes of an object that has more."""

    def write_bytes(self, key: str, content: bytes) -> None:
        """Write a small object, whole or not at all."""

    def md5_of(self, key: str) -> str | None:
        """Hexadecimal MD5 of the object's content, None where the object or its MD5 is not known."""

    def child(self, key: str) -> str:
        """The URI or path of one object, for messages: `s3://bucket/prefix/key`."""
