"""The base class of bucket stores: keys, retries, verified downloads, pickling."""

from __future__ import annotations

import io
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

from maag.errors import MaagError, StorageError
from maag.storage import replacing, storage_errors
from maag.storage.digests import md5_of
from maag.storage.failures import Failure, Kind, RequestFailed
from maag.storage.keys import readable_key, safe_key
from maag.storage.retries import Retries
from maag.storage.store import StoredObject

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Details:
    """Metadata of one object."""

    size: int
    version: str
    md5: str | None
    """Hexadecimal."""
    sure: bool = True
    """Whether `md5` is known to be an MD5; False if it is an ETag that looks like one."""


class BucketStore(ABC):
    """The objects of a bucket whose keys begin with `prefix/`; subclasses implement the abstract methods below."""

    scheme: ClassVar[str]
    retries_requests: ClassVar[bool] = True
    """Whether requests are retried here; if not, the storage's client library does it."""

    def __init__(self, bucket: str, prefix: str, retries: Retries) -> None:
        self._begin(bucket, prefix, retries)

    def __getstate__(self) -> tuple[str, str, Retries]:
        return self._bucket, self._prefix, self._retries

    def __setstate__(self, state: tuple[str, str, Retries]) -> None:
        self._begin(*state)

    @property
    def uri(self) -> str:
        """See Store."""
        return f"{self.scheme}://{self._bucket}/{self._prefix}".rstrip("/")

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """See Store."""
        page: Iterable[StoredObject]
        token: str | None = None
        while True:
            page, token = self._ask("list", self.child(prefix), self._page, self._start + prefix, token)
            for item in page:
                if not item.key.endswith("/"):
                    yield StoredObject(item.key.removeprefix(self._start), item.size, item.version)
            if token is None:
                return

    def stat(self, key: str) -> StoredObject | None:
        """See Store."""
        details = self._details(key)
        return None if details is None else StoredObject(key, details.size, details.version)

    def fetch(self, key: str, to: Path, version: str | None = None) -> StoredObject:
        """See Store."""
        with replacing(to) as temporary, temporary.open("w+b") as target:
            return self._download(key, target, version)

    def put(self, source: Path, key: str) -> None:
        """See Store."""
        with storage_errors(source, "read"), source.open("rb") as content:
            self._upload(key, content)

    def read_bytes(self, key: str) -> bytes:
        """See Store."""
        target = io.BytesIO()
        self._download(key, target, None)
        return target.getvalue()

    def read_start(self, key: str, count: int) -> bytes:
        """See Store."""
        return self._ask("read", self.child(key), self._get_start, self._full(key), count)

    def write_bytes(self, key: str, content: bytes) -> None:
        """See Store."""
        self._upload(key, io.BytesIO(content))

    def md5_of(self, key: str) -> str | None:
        """See Store."""
        details = self._details(key)
        return None if details is None else details.md5

    def child(self, key: str) -> str:
        """See Store."""
        return f"{self.uri}/{key}"

    def _begin(self, bucket: str, prefix: str, retries: Retries) -> None:
        self._bucket, self._prefix, self._retries = bucket, prefix, retries
        self._start = f"{prefix}/" if prefix else ""
        self._lock = threading.Lock()
        self._opened: Any = None
        self._bucket_is_there = False
        """Known from an earlier answer. Some storages answer alike for a missing object and a missing bucket; they are
        asked about the bucket only once."""

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _full(self, key: str) -> str:
        return self._start + readable_key(key)

    def _details(self, key: str) -> Details | None:
        return self._ask("read", self.child(key), self._head, self._full(key))

    def _ask(self, verb: str, what: str, request: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Send a request, with retries, and turn its errors into StorageErrors."""
        for last in self._retries.rounds() if self.retries_requests else (True,):
            try:
                return request(*arguments)
            except Exception as error:
                failure = self._failure_of(error)
                if failure is None:
                    raise
                if last or failure.kind is not Kind.TRANSIENT:
                    raise failure.as_error(what, verb) from error
        raise AssertionError("the last attempt returns or raises")

    def _download(self, key: str, target: BinaryIO, version: str | None) -> StoredObject:
        """Copy to an empty file: a body that ends early is continued, a corrupt one is downloaded again."""
        what, last_seen = self.child(key), ""
        for last in self._retries.rounds():
            details, body = self._ask("read", what, self._get, self._full(key), version, target.tell())
            version = details.version
            try:
                for chunk in body:
                    target.write(chunk)
            except Exception as error:
                failure = self._failure_of(error)
                if failure is None:
                    raise
                if last or failure.kind is not Kind.TRANSIENT:
                    raise failure.as_error(what, "read") from error
                if target.tell() < details.size:
                    continue
            target.seek(0)
            seen = md5_of(target).hexdigest()
            # Some servers' ETags look like an MD5 and are not; equal content of two downloads is then accepted.
            right = details.md5 in (None, seen) or (seen == last_seen and not details.sure)
            if right and target.tell() == details.size:
                return StoredObject(key, details.size, details.version)
            last_seen = seen
            target.seek(0)
            target.truncate()
        raise StorageError(
            f"cannot read {what}: in {self._retries.attempts} downloads its length or MD5 did not match;"
            " store the object again"
        )

    def _upload(self, key: str, content: BinaryIO) -> None:
        full = self._start + safe_key(key)
        digest = md5_of(content)

        def send() -> None:
            content.seek(0)
            self._send(full, content, digest.digest())

        self._ask("write", self.child(key), send)

    def _failure_of(self, error: Exception) -> Failure | None:
        if isinstance(error, MaagError):
            return None
        return error.failure if isinstance(error, RequestFailed) else self._failure(error)

    @abstractmethod
    def _open(self) -> Any:
        """A thread-safe client."""

    @abstractmethod
    def _page(self, prefix: str, token: str | None) -> tuple[Iterable[StoredObject], str | None]:
        """A page of objects by their full keys, and the token of the next page, None after the last."""

    @abstractmethod
    def _head(self, key: str) -> Details | None:
        """Metadata of an object, None if it is missing; raises if its bucket is missing."""

    @abstractmethod
    def _get(self, key: str, version: str | None, start: int) -> tuple[Details, Iterator[bytes]]:
        """The bytes from `start` on, of this version only."""

    @abstractmethod
    def _get_start(self, key: str, count: int) -> bytes:
        """The first bytes."""

    @abstractmethod
    def _send(self, key: str, content: BinaryIO, md5: bytes) -> None:
        """Store the content of the stream, all or nothing."""

    @abstractmethod
    def _failure(self, error: Exception) -> Failure | None:
        """The Failure for an error of the storage's library; None for other errors."""
