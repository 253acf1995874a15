"""The protocol that folders and buckets share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Metadata of one object."""

    key: str
    """Relative to the store's root, with parts separated by '/'."""
    size: int | None
    """Bytes."""
    version: str
    """Changes when the content does: an ETag, a generation, or 'MTIME_NS-SIZE' of a local file."""


class Store(Protocol):
    """A folder or a prefix of a bucket; picklable and thread-safe.

    Besides the errors in their docstrings, all methods raise: AccessDeniedError at once if access is denied;
    MissingObjectError if the bucket or the object does not exist; DataError for an unsafe key; StorageError for
    everything else, after a bounded number of attempts.
    """

    @property
    def uri(self) -> str:
        """For display: `s3://bucket/prefix`, or the folder's path."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects whose keys start with `prefix`, in key order; pages are requested lazily.

        maag's unfinished temporary files and the empty objects `…/` that represent folders are left out.
        """

    def stat(self, key: str) -> StoredObject | None:
        """Metadata of the object; None only if it does not exist."""

    def fetch(self, key: str, to: Path, version: str | None = None) -> StoredObject:
        """Copy the whole object to the local file `to`, or raise and leave no file.

        Raises:
            ObjectChangedError: the object has another `version`, or changed during the copy.
        """

    def put(self, source: Path, key: str) -> None:
        """Copy a local file to the store with its MD5, all or nothing."""

    def read_bytes(self, key: str) -> bytes:
        """The whole content of a small object."""

    def read_start(self, key: str, count: int) -> bytes:
        """The first `count` bytes of a longer object."""

    def write_bytes(self, key: str, content: bytes) -> None:
        """Write a small object, all or nothing."""

    def md5_of(self, key: str) -> str | None:
        """Hexadecimal MD5 of the object's content; None if the object or its MD5 is unknown."""

    def child(self, key: str) -> str:
        """The URI or path of an object, for messages: `s3://bucket/prefix/key`."""
