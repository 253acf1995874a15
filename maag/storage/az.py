"""Azure Blob Storage, through azure-storage-blob."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    IncompleteReadError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import BlobServiceClient, ContentSettings

from maag.storage.bucket import BucketStore, Details
from maag.storage.failures import Failure, Kind, RequestFailed, kind_of_status
from maag.storage.store import StoredObject

_PART = 16 << 20
"""Bytes per request."""
_FOLDER = "hdi_isfolder"
"""Metadata key of folders, in accounts with a hierarchical namespace."""
_DENIED_CODES = frozenset({"NoAuthenticationInformation", "InvalidAuthenticationInfo"})
_SIGN_IN = (
    "check what the account may do and whether its token has expired: set AZURE_STORAGE_CONNECTION_STRING, or"
    " AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN (without either for public containers)"
)


class AzStore(BucketStore):
    """See BucketStore; the version is the ETag."""

    scheme = "az"

    def _open(self) -> Any:
        patience: dict[str, Any] = {
            "retry_total": 0,  # BucketStore retries requests
            "connection_timeout": self._retries.connect_timeout_s,
            "read_timeout": self._retries.read_timeout_s,
            "max_single_put_size": _PART,
            "max_block_size": _PART,
            "max_single_get_size": _PART,
            "max_chunk_get_size": _PART,
        }
        if connection := os.environ.get("AZURE_STORAGE_CONNECTION_STRING"):
            return BlobServiceClient.from_connection_string(connection, **patience)
        account = os.environ.get("AZURE_STORAGE_ACCOUNT")
        if not account:
            raise RequestFailed(Failure(Kind.DENIED, "no credentials", _SIGN_IN))
        credential = os.environ.get("AZURE_STORAGE_KEY") or os.environ.get("AZURE_STORAGE_SAS_TOKEN")
        return BlobServiceClient(f"https://{account}.blob.core.windows.net", credential, **patience)

    def _page(self, prefix: str, token: str | None) -> tuple[list[StoredObject], str | None]:
        container = self._client.get_container_client(self._bucket)
        pages = container.list_blobs(name_starts_with=prefix, include=["metadata"]).by_page(token)
        blobs = [blob for blob in next(pages, ()) if (blob.metadata or {}).get(_FOLDER) != "true"]
        return [StoredObject(blob.name, blob.size, _etag(blob)) for blob in blobs], pages.continuation_token or None

    def _head(self, key: str) -> Details | None:
        try:
            return _read(self._blob(key).get_blob_properties())
        except ResourceNotFoundError as error:
            if _code(error) == "ContainerNotFound":
                raise
            return None

    def _get(self, key: str, version: str | None, start: int) -> tuple[Details, Iterator[bytes]]:
        only: dict[str, Any] = {}
        if version is not None:
            only = {"etag": f'"{version}"', "match_condition": MatchConditions.IfNotModified}
        stream = self._blob(key).download_blob(offset=start or None, **only)
        # For a range of an object, the client reports the size of the range.
        details = _read(stream.properties)
        return replace(details, size=start + details.size), stream.chunks()

    def _get_start(self, key: str, count: int) -> bytes:
        return bytes(self._blob(key).download_blob(offset=0, length=count).readall())

    def _send(self, key: str, content: BinaryIO, md5: bytes) -> None:
        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(md5))
        self._blob(key).upload_blob(content, overwrite=True, content_settings=settings)

    def _blob(self, key: str) -> Any:
        return self._client.get_blob_client(self._bucket, key)

    def _failure(self, error: Exception) -> Failure | None:
        if isinstance(error, (ServiceRequestError, ServiceResponseError, IncompleteReadError)):
            return Failure(Kind.TRANSIENT, str(error))
        if isinstance(error, HttpResponseError):
            message, code = str(error.message or error).partition("\n")[0], _code(error)
            kind = kind_of_status(error.status_code or 0)
            if code == "ContainerNotFound":
                kind = Kind.MISSING_BUCKET
            return Failure(Kind.DENIED if code in _DENIED_CODES else kind, f"{code} {message}".strip(), _SIGN_IN)
        if isinstance(error, (AzureError, ValueError)):
            return Failure(Kind.OTHER, str(error))
        return None


def _code(error: HttpResponseError) -> str:
    return str(getattr(error, "error_code", None) or "")


def _etag(properties: Any) -> str:
    return str(properties.etag).strip('"')


def _read(properties: Any) -> Details:
    md5 = properties.content_settings.content_md5
    return Details(int(properties.size), _etag(properties), bytes(md5).hex() if md5 else None)
