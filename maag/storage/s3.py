"""S3 and compatible storage (MinIO, Ceph), through boto3."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, BinaryIO, ClassVar

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from maag.storage.bucket import BucketStore, Details
from maag.storage.failures import Failure
from maag.storage.s3_client import build_client, failure_of, status_of
from maag.storage.store import StoredObject

MD5_METADATA = "maag-md5"
_CHUNK = 1 << 20
_PLAIN_ETAG = re.compile(r"[0-9a-f]{32}")


class S3Store(BucketStore):
    """See BucketStore; the version is the ETag.

    The MD5 is the one that maag stored as metadata, otherwise the ETag, unless that is not an MD5: of a multipart
    upload, with a KMS or customer key, or in a directory bucket.
    """

    scheme = "s3"
    retries_requests = False
    part_bytes: ClassVar[int] = 64 << 20
    """Larger files are uploaded in parts of this size; if one fails, the upload is aborted."""

    def _open(self) -> Any:
        return build_client(self._retries)

    def _page(self, prefix: str, token: str | None) -> tuple[list[StoredObject], str | None]:
        further = {} if token is None else {"ContinuationToken": token}
        page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **further)
        found = [StoredObject(item["Key"], item["Size"], _etag(item)) for item in page.get("Contents", ())]
        return found, page.get("NextContinuationToken")

    def _head(self, key: str) -> Details | None:
        try:
            answer = self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            # The answer to HEAD has no body with an error code.
            if status_of(error) == 404:
                self._require_bucket(key)
                return None
            if status_of(error) == 400:
                self._client.get_object(Bucket=self._bucket, Key=key, Range="bytes=0-0")["Body"].close()
            raise
        return self._read(answer, answer["ContentLength"])

    def _get(self, key: str, version: str | None, start: int) -> tuple[Details, Iterator[bytes]]:
        only = {} if version is None else {"IfMatch": f'"{version}"'}
        part = {"Range": f"bytes={start}-"} if start else {}
        answer = self._client.get_object(Bucket=self._bucket, Key=key, **only, **part)
        return self._read(answer, answer["ContentLength"] + start), _chunks(answer["Body"])

    def _get_start(self, key: str, count: int) -> bytes:
        answer = self._client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes=0-{count - 1}")
        with closing(answer["Body"]) as body:
            return bytes(body.read())

    def _send(self, key: str, content: BinaryIO, md5: bytes) -> None:
        self._client.upload_fileobj(
            content,
            self._bucket,
            key,
            ExtraArgs={"Metadata": {MD5_METADATA: md5.hex()}},
            Config=TransferConfig(
                multipart_threshold=self.part_bytes, multipart_chunksize=self.part_bytes, use_threads=False
            ),
        )

    def _require_bucket(self, key: str) -> None:
        if not self._bucket_is_there:
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
            self._bucket_is_there = True

    def _failure(self, error: Exception) -> Failure | None:
        return failure_of(error)

    def _read(self, answer: dict[str, Any], size: int) -> Details:
        etag, stored_md5 = _etag(answer), answer.get("Metadata", {}).get(MD5_METADATA)
        encrypted = answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
        plain = _PLAIN_ETAG.fullmatch(etag) and not encrypted and not self._bucket.endswith("--x-s3")
        return Details(size, etag, stored_md5 or (etag if plain else None), sure=stored_md5 is not None)


def _etag(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _chunks(body: Any) -> Iterator[bytes]:
    try:
        yield from body.iter_chunks(_CHUNK)
    finally:
        body.close()
