"""Google Cloud Storage, through google-cloud-storage."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud.storage import Client
from google.resumable_media import DataCorruption, InvalidResponse
from requests.exceptions import RequestException, SSLError
from urllib3.exceptions import HTTPError

from maag.storage.bucket import BucketStore, Details
from maag.storage.failures import Failure, Kind, RequestFailed, kind_of_status
from maag.storage.store import StoredObject

_RANGE = 16 << 20
"""Bytes per request."""
_TRANSIENT = (TransportError, DataCorruption, RequestException, HTTPError)
_SIGN_IN = (
    "check what the account may do and whether it has expired: run `gcloud auth application-default login`, or set"
    " GOOGLE_APPLICATION_CREDENTIALS"
)


class GsStore(BucketStore):
    """See BucketStore; the version is the generation. Composite objects may have no MD5."""

    scheme = "gs"

    def _open(self) -> Any:
        try:
            return Client()
        except DefaultCredentialsError:  # public buckets need no credentials
            return Client.create_anonymous_client()

    @property
    def _patience(self) -> dict[str, Any]:
        """Timeouts; without retries, which BucketStore does."""
        return {"timeout": (self._retries.connect_timeout_s, self._retries.read_timeout_s), "retry": None}

    def _page(self, prefix: str, token: str | None) -> tuple[list[StoredObject], str | None]:
        found = self._client.list_blobs(self._bucket, prefix=prefix, page_token=token, page_size=1000, **self._patience)
        blobs = next(found.pages, ())
        return [StoredObject(blob.name, blob.size, str(blob.generation)) for blob in blobs], found.next_page_token

    def _head(self, key: str) -> Details | None:
        blob = self._client.bucket(self._bucket).get_blob(key, **self._patience)
        if blob is None:
            self._require_bucket(key)
            return None
        md5 = base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else None
        return Details(int(blob.size), str(blob.generation), md5)

    def _get(self, key: str, version: str | None, start: int) -> tuple[Details, Iterator[bytes]]:
        details = self._head(key)
        if details is None:
            raise RequestFailed(Failure(Kind.MISSING, ""))
        if version not in (None, details.version):
            raise RequestFailed(Failure(Kind.CHANGED, ""))
        return details, self._ranges(key, details, start)

    def _ranges(self, key: str, details: Details, start: int) -> Iterator[bytes]:
        blob = self._client.bucket(self._bucket).blob(key)
        for first in range(start, details.size, _RANGE):
            last = min(first + _RANGE, details.size) - 1
            content = blob.download_as_bytes(
                start=first,
                end=last,
                if_generation_match=int(details.version),
                raw_download=True,  # otherwise compressed objects would be decompressed
                checksum=None,  # it is of the whole object, which is checked at the end
                **self._patience,
            )
            yield content
            if len(content) != last + 1 - first:
                raise RequestFailed(Failure(Kind.TRANSIENT, f"got {len(content)} bytes of {last + 1 - first}"))

    def _get_start(self, key: str, count: int) -> bytes:
        blob = self._client.bucket(self._bucket).blob(key)
        return bytes(blob.download_as_bytes(start=0, end=count - 1, raw_download=True, checksum=None, **self._patience))

    def _send(self, key: str, content: BinaryIO, md5: bytes) -> None:
        blob = self._client.bucket(self._bucket).blob(key)
        blob.md5_hash = base64.b64encode(md5).decode()  # Google refuses content that does not match
        size = content.seek(0, io.SEEK_END)
        content.seek(0)
        blob.upload_from_file(content, size=size, content_type="application/octet-stream", **self._patience)

    def _require_bucket(self, key: str) -> None:
        if self._bucket_is_there:
            return
        try:
            next(self._client.list_blobs(self._bucket, prefix=key, max_results=1, **self._patience).pages, None)
        except NotFound as error:
            raise RequestFailed(Failure(Kind.MISSING_BUCKET, str(error))) from error
        self._bucket_is_there = True

    def _failure(self, error: Exception) -> Failure | None:
        if isinstance(error, GoogleAPICallError):
            return Failure(kind_of_status(int(error.code or 0)), str(error), _SIGN_IN)
        if isinstance(error, InvalidResponse):
            return Failure(kind_of_status(error.response.status_code), str(error), _SIGN_IN)
        if isinstance(error, _TRANSIENT):
            return Failure(Kind.OTHER if isinstance(error, SSLError) else Kind.TRANSIENT, str(error))
        return Failure(Kind.DENIED, str(error), _SIGN_IN) if isinstance(error, GoogleAuthError) else None
