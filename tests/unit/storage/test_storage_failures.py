"""S3's errors are classified, and transient ones are retried with increasing waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import botocore.exceptions as aws
import pytest

from maag.errors import AccessDeniedError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage.failures import Kind
from maag.storage.opening import open_store
from maag.storage.retries import Retries
from maag.storage.s3_client import failure_of


def answer(status: int, code: str, operation: str = "GetObject") -> aws.ClientError:
    return aws.ClientError(
        {"Error": {"Code": code, "Message": "Said."}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer(404, "NoSuchKey"), Kind.MISSING),
        (answer(404, "NoSuchBucket"), Kind.MISSING_BUCKET),
        (answer(403, "AccessDenied"), Kind.DENIED),
        (answer(403, "403", "HeadObject"), Kind.DENIED),
        (answer(400, "ExpiredToken"), Kind.DENIED),
        (answer(400, "InvalidToken"), Kind.DENIED),
        (answer(403, "InvalidAccessKeyId"), Kind.DENIED),
        (aws.NoCredentialsError(), Kind.DENIED),
        (aws.ProfileNotFound(profile="none"), Kind.DENIED),
        (aws.UnauthorizedSSOTokenError(), Kind.DENIED),
        (answer(412, "PreconditionFailed"), Kind.CHANGED),
        (answer(503, "SlowDown"), Kind.TRANSIENT),
        (answer(429, "429", "HeadObject"), Kind.TRANSIENT),
        (answer(400, "RequestTimeout"), Kind.TRANSIENT),
        (aws.ReadTimeoutError(endpoint_url="x"), Kind.TRANSIENT),
        (aws.EndpointConnectionError(endpoint_url="x"), Kind.TRANSIENT),
        (aws.ConnectionClosedError(endpoint_url="x"), Kind.TRANSIENT),
        (aws.IncompleteReadError(actual_bytes=1, expected_bytes=2), Kind.TRANSIENT),
        (aws.ResponseStreamingError(error="x"), Kind.TRANSIENT),
        (aws.SSLError(endpoint_url="x", error="certificate"), Kind.OTHER),
        (answer(409, "InvalidObjectState"), Kind.OTHER),
        (ValueError("Invalid endpoint: x"), Kind.OTHER),
    ],
    ids=lambda value: getattr(value, "name", None) or str(value)[:40],
)
def test_s3_errors_are_classified(error: Exception, kind: Kind) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.kind is kind


def test_unrelated_errors_are_not_classified() -> None:
    assert failure_of(KeyError("x")) is None
    assert failure_of(OSError(28, "No space left on device")) is None


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (answer(404, "NoSuchKey"), MissingObjectError, "cannot read s3://b/k: there is no such object"),
        (answer(404, "NoSuchBucket"), MissingObjectError, "there is no such bucket; check its name"),
        (answer(403, "AccessDenied"), AccessDeniedError, "access denied (403 AccessDenied: Said); check what"),
        (answer(403, "403", "HeadObject"), AccessDeniedError, "S3 also answers this for a missing object"),
        (aws.NoCredentialsError(), AccessDeniedError, "AWS_NO_SIGN_REQUEST=YES for a public bucket"),
        (answer(412, "PreconditionFailed"), ObjectChangedError, "it has changed since it was listed; list it again"),
        (answer(503, "SlowDown"), StorageError, "every attempt failed (503 SlowDown: Said); check the network"),
        (answer(409, "InvalidObjectState"), StorageError, "409 InvalidObjectState: Said; check the address"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_error_messages_name_the_object_and_the_way_out(
    error: Exception, kind: type[StorageError], sentence: str
) -> None:
    failure = failure_of(error)
    assert failure is not None
    found = failure.as_error("s3://b/k", "read")
    assert type(found) is kind
    assert str(found).startswith("cannot read s3://b/k: ")
    assert sentence in str(found)
    assert "\n" not in str(found)


def test_waits_double_up_to_a_limit_with_random_jitter() -> None:
    retries = Retries(first_wait_s=1.0, longest_wait_s=10.0)
    for attempt, longest in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (9, 10.0)]:
        waits = [retries.wait_s(attempt) for _ in range(50)]
        assert longest / 2 <= min(waits)
        assert max(waits) <= longest
        assert len(set(waits)) > 1


def test_retries_yield_one_round_per_attempt() -> None:
    assert list(Retries(attempts=3, first_wait_s=0).rounds()) == [False, False, True]
    assert list(Retries(attempts=1).rounds()) == [True]


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gs"), ("az", "azure")])
def test_missing_package_error_gives_the_install_command(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"maag.storage.{scheme}", None)
    with pytest.raises(StorageError) as caught:
        open_store(f"{scheme}://bucket/a")
    assert f"run pip install 'maag[{extra}]'" in str(caught.value)


def test_cloud_clients_are_imported_only_when_needed(tmp_path: Path) -> None:
    program = (
        "import sys, maag.storage, maag.storage.opening as s; s.open_store('.')\n"
        "print({name.split('.')[0] for name in sys.modules} & {'boto3', 'botocore', 'google', 'azure'})"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"
