"""S3 and what speaks like it (MinIO, Ceph), over boto3."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
)

from maag.errors import StorageError
from maag.storage import replacing, storage_errors
from maag.storage.digests import md5_of
from maag.storage.keys import readable_key, safe_key
from maag.storage.retries import Retries
from maag.storage.s3_client import build_client, s3_errors, status_of
from maag.storage.stores import StoredObject

MD5_METADATA = "maag-md5"
_CHUNK = 1 << 20
_PART = 64 << 20
"""Larger files are sent in parts of this size."""
_PLAIN_ETAG = re.compile(r"[0-9a-f]{32}")
_CUT = (HTTPClientError, IncompleteReadError, ReadTimeoutError)


class S3Store:
    """The objects of `bucket` whose keys begin with `prefix/`."""

    def __init__(self, bucket: str, prefix: str, retries: Retries) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._start = f"{prefix}/" if prefix else ""
        self._retries = retries
        self._connect()

    def __getstate__(self) -> tuple[str, str, Retries]:
        return self._bucket, self._prefix, self._retries

    def __setstate__(self, state: tuple[str, str, Retries]) -> None:
        self._bucket, self._prefix, self._retries = state
        self._start = f"{self._prefix}/" if self._prefix else ""
        self._connect()

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """See Store; a page is a thousand objects."""
        with s3_errors(self.child(prefix), "list"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._start + prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        yield StoredObject(item["Key"].removeprefix(self._start), item["Size"], _etag(item))

    def stat(self, key: str) -> StoredObject | None:
        """See Store."""
        head = self._head(key)
        return None if head is None else StoredObject(key, head["ContentLength"], _etag(head))

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

    def write_bytes(self, key: str, content: bytes) -> None:
        """See Store."""
        self._upload(key, io.BytesIO(content))

    def md5_of(self, key: str) -> str | None:
        """See Store; the ETag is one unless the object came in parts, is encrypted with
        a key of KMS or of the customer, or lies in a bucket of one zone.
        """
        head = self._head(key)
        return None if head is None else self._md5(head)

    def delete(self, key: str) -> None:
        """See Store."""
        with s3_errors(self.child(key), "delete"):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def child(self, key: str) -> str:
        """See Store."""
        return f"{self.uri}/{key}"

    def _connect(self) -> None:
        self._lock = threading.Lock()
        self._opened: Any = None

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = build_client(self._retries)
            return self._opened

    def _key(self, key: str) -> str:
        return self._start + readable_key(key)

    def _head(self, key: str) -> dict[str, Any] | None:
        where = {"Bucket": self._bucket, "Key": self._key(key)}
        with s3_errors(self.child(key)):
            try:
                return dict(self._client.head_object(**where))
            except ClientError as error:
                if status_of(error) == 404:
                    # Such an answer has no body that could tell a missing object from a missing bucket.
                    self._client.list_objects_v2(Bucket=self._bucket, Prefix=where["Key"], MaxKeys=1)
                    return None
                if status_of(error) == 400:
                    self._client.get_object(**where, Range="bytes=0-0")  # its answer says why
                raise

    def _md5(self, head: dict[str, Any]) -> str | None:
        """The MD5 that a HEAD or a GET tells."""
        if said := head.get("Metadata", {}).get(MD5_METADATA):
            return str(said)
        encrypted = head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head
        plain = _PLAIN_ETAG.fullmatch(_etag(head)) and not encrypted and not self._bucket.endswith("--x-s3")
        return _etag(head) if plain else None

    def _download(self, key: str, target: BinaryIO, version: str | None) -> StoredObject:
        """Copy to an empty file; a body that ends early is continued, one of a wrong checksum begun again."""
        digest, stored, last_seen = md5_of(), None, ""
        for last in self._retries.rounds():
            with s3_errors(self.child(key)):
                response = self._get(key, version, target.tell())
                if "ContentRange" not in response:
                    digest, size = _begin_again(target), response["ContentLength"]
                    stored = StoredObject(key, size, _etag(response))
                    version = stored.version
                try:
                    for chunk in response["Body"].iter_chunks(_CHUNK):
                        digest.update(chunk)
                        target.write(chunk)
                except FlexibleChecksumError:
                    digest = _begin_again(target)
                    continue
                except _CUT:
                    if last:
                        raise
                    continue
                finally:
                    response["Body"].close()
            assert stored is not None
            whole, wanted = target.tell() == stored.size, self._md5(response)
            # Some servers' ETags look like an MD5 and are none; then the same content arrives twice.
            if whole and (wanted is None or digest.hexdigest() in (wanted, last_seen)):
                return stored
            last_seen = "" if MD5_METADATA in response.get("Metadata", {}) else digest.hexdigest()
            digest = _begin_again(target)
        raise StorageError(
            f"cannot read {self.child(key)}: {self._retries.attempts} times what arrived was not what its length"
            " and MD5 say; store the object again"
        )

    def _get(self, key: str, version: str | None, start: int) -> dict[str, Any]:
        only = {} if version is None else {"IfMatch": f'"{version}"'}
        part = {"Range": f"bytes={start}-"} if start else {}
        return dict(self._client.get_object(Bucket=self._bucket, Key=self._key(key), **only, **part))

    def _upload(self, key: str, content: BinaryIO) -> None:
        from boto3.s3.transfer import TransferConfig

        full = self._start + safe_key(key)
        digest = md5_of(content).hexdigest()
        content.seek(0)
        with s3_errors(self.child(key), "write"):
            self._client.upload_fileobj(
                content,
                self._bucket,
                full,
                ExtraArgs={"Metadata": {MD5_METADATA: digest}},
                Config=TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, use_threads=False),
            )


def _etag(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _begin_again(target: BinaryIO) -> Any:
    target.seek(0)
    target.truncate()
    return md5_of()
