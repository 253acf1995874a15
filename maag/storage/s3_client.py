"""The client of boto3: its patience, its credentials, and its errors as sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)

from maag.errors import AccessDeniedError, MaagError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage.retries import PASSING_STATUSES, Retries

UNSIGNED_VARIABLE = "AWS_NO_SIGN_REQUEST"
"""Set to YES, public buckets are read without credentials; GDAL's name for it."""
_CONNECTIONS = 64
_PASSING_CODES = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"})
_DENIED_CODES = frozenset(
    {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AccessDenied", "InvalidAccessKeyId"}
)
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)


def build_client(retries: Retries) -> Any:
    """A client for S3 from the environment and the files of AWS, `AWS_ENDPOINT_URL` among them.

    Every request, also each part of an upload, is sent again by botocore's own loop, as long as `retries` allows.
    """
    unsigned = os.environ.get(UNSIGNED_VARIABLE, "").lower() in ("yes", "true", "1")
    config = Config(
        connect_timeout=retries.connect_timeout_s,
        read_timeout=retries.read_timeout_s,
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        # botocore's own waits cannot be set; its loop also asks the handler below.
        retries={"mode": "standard", "total_max_attempts": 1},
        signature_version=UNSIGNED if unsigned else None,
    )
    with s3_errors("S3", "open"):
        client = boto3.session.Session().client("s3", config=config)

    def wait_before_retry(attempts: int, response: Any, caught_exception: Any, **_: Any) -> float | None:
        if attempts < retries.attempts and _passes(response, caught_exception):
            return retries.wait_s(attempts)
        return None

    client.meta.events.register("needs-retry.s3", wait_before_retry)
    return client


@contextmanager
def s3_errors(what: str, verb: str = "read") -> Iterator[None]:
    """Turn boto3's errors into sentences of ours.

    Raises:
        AccessDeniedError, MissingObjectError, ObjectChangedError, StorageError: see there.
    """
    try:
        yield
    except MaagError:
        raise
    except ClientError as error:
        raise _answered(error, what, verb) from error
    except _NO_CREDENTIALS as error:
        raise AccessDeniedError(
            f"cannot {verb} {what}: no usable credentials ({error}); run `aws configure`, set AWS_PROFILE or"
            f" AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or {UNSIGNED_VARIABLE}=YES for a public bucket"
        ) from error
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise StorageError(
            f"cannot {verb} {what}: no attempt got a whole answer ({error}); check the network and AWS_ENDPOINT_URL"
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"cannot {verb} {what}: {error}; check the bucket's name and the settings of AWS") from error


def status_of(error: ClientError) -> int:
    """The status of HTTP that came with an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _passes(response: Any, caught: Any) -> bool:
    if caught is not None:
        return isinstance(caught, (ConnectionError, HTTPClientError)) and not isinstance(caught, SSLError)
    answer, parsed = response
    return answer.status_code in PASSING_STATUSES or parsed.get("Error", {}).get("Code") in _PASSING_CODES


def _answered(error: ClientError, what: str, verb: str) -> StorageError:
    code, status = str(error.response.get("Error", {}).get("Code", "")), status_of(error)
    said = str(error.response.get("Error", {}).get("Message", "")).rstrip(". ")
    start = f"cannot {verb} {what}"
    if code == "NoSuchBucket":
        return MissingObjectError(f"{start}: there is no such bucket; check its name and AWS_ENDPOINT_URL")
    if status in (401, 403) or code in _DENIED_CODES:
        hint = ""
        if error.operation_name == "HeadObject":
            hint = " (S3 answers so also for an object that is not there, to those who may not list the bucket)"
        return AccessDeniedError(
            f"{start}: access denied, {code} {said}{hint}; check or renew the credentials and what they allow"
        )
    if status == 404:
        return MissingObjectError(f"{start}: there is no such object")
    if status == 412:
        return ObjectChangedError(f"{start}: it is not the object that was listed, it has changed; list it again")
    if status in PASSING_STATUSES:
        return StorageError(f"{start}: the storage answered {status} {code} to every attempt; try again later")
    return StorageError(f"{start}: the storage answered {status} {code}: {said}")
