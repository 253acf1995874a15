"""The boto3 client: its timeouts and retries, its credentials, and its errors as Failures."""

from __future__ import annotations

import os
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
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

from maag.storage.failures import Failure, Kind, kind_of_status
from maag.storage.retries import TRANSIENT_STATUSES, Retries

UNSIGNED_VARIABLE = "AWS_NO_SIGN_REQUEST"
"""Set to YES to read public buckets without credentials; the name is GDAL's."""
_SIGN_IN = (
    "check what the credentials allow and whether they have expired: run `aws configure`, set AWS_PROFILE or"
    f" AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or {UNSIGNED_VARIABLE}=YES for a public bucket"
)
_HIDDEN = "S3 also answers this for a missing object if you may not list the bucket; "
_CONNECTIONS = 64
_TRANSIENT_CODES = frozenset(
    {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"}
)
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
    """An S3 client configured by AWS's environment variables and files, including `AWS_ENDPOINT_URL`.

    Every request, and each part of an upload, is retried by botocore's own loop as `retries` allows.
    """
    unsigned = os.environ.get(UNSIGNED_VARIABLE, "").lower() in ("yes", "true", "1")
    config = Config(
        connect_timeout=retries.connect_timeout_s,
        read_timeout=retries.read_timeout_s,
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        # botocore's own waits cannot be configured; its loop also calls the handler below.
        retries={"mode": "standard", "total_max_attempts": 1},
        signature_version=UNSIGNED if unsigned else None,
    )
    client = boto3.session.Session().client("s3", config=config)

    def wait_before_retry(attempts: int, response: Any, caught_exception: Any, **_: Any) -> float | None:
        if attempts < retries.attempts and _is_transient(response, caught_exception):
            return retries.wait_s(attempts)
        return None

    client.meta.events.register("needs-retry.s3", wait_before_retry)
    return client


def failure_of(error: Exception) -> Failure | None:
    """The Failure for an error of boto3; None for other errors."""
    if isinstance(error, ClientError):
        return _answered(error)
    if isinstance(error, _NO_CREDENTIALS):
        return Failure(Kind.DENIED, f"no usable credentials: {error}", _SIGN_IN)
    if isinstance(error, (ConnectionError, FlexibleChecksumError, HTTPClientError, IncompleteReadError)):
        return Failure(Kind.OTHER if isinstance(error, SSLError) else Kind.TRANSIENT, str(error))
    return Failure(Kind.OTHER, str(error)) if isinstance(error, (BotoCoreError, ValueError)) else None


def status_of(error: ClientError) -> int:
    """The HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_transient(response: Any, caught: Exception | None) -> bool:
    if caught is not None:
        failure = failure_of(caught)
        return failure is not None and failure.kind is Kind.TRANSIENT
    answer, parsed = response
    return answer.status_code in TRANSIENT_STATUSES or parsed.get("Error", {}).get("Code") in _TRANSIENT_CODES


def _answered(error: ClientError) -> Failure:
    body = error.response.get("Error", {})
    code = str(body.get("Code", ""))
    message = f"{status_of(error)} {code}: {body.get('Message', '')}"
    if code == "NoSuchBucket":
        return Failure(Kind.MISSING_BUCKET, message)
    if code in _DENIED_CODES:
        return Failure(Kind.DENIED, message, _SIGN_IN)
    if code in _TRANSIENT_CODES:
        return Failure(Kind.TRANSIENT, message)
    hidden = error.operation_name == "HeadObject" and status_of(error) == 403
    return Failure(kind_of_status(status_of(error)), message, (_HIDDEN if hidden else "") + _SIGN_IN)
