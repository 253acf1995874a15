"""Requests to buckets that fail, are denied, or return content other than listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_stores import FAST_RETRIES, CloudLocation, file_names
from faults import Fault

from maag.errors import AccessDeniedError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage.opening import open_store
from maag.storage.store import Store, StoredObject

pytestmark = pytest.mark.integration


def test_missing_bucket_is_not_reported_as_a_missing_object(cloud: CloudLocation, out: Path) -> None:
    other = open_store(f"{cloud.scheme}://no-such-bucket/x", FAST_RETRIES)
    for ask in (
        lambda: other.stat("a"),
        lambda: other.md5_of("a"),
        lambda: list(other.list()),
        lambda: other.read_bytes("a"),
        lambda: other.fetch("a", out / "a"),
        lambda: other.write_bytes("a", b""),
    ):
        with pytest.raises(MissingObjectError, match="there is no such bucket"):
            ask()
    assert file_names(out) == []


REQUESTS: dict[str, Callable[[Store, Path], Any]] = {
    "GET": lambda store, out: store.fetch("a", out / "a"),
    "PUT": lambda store, out: store.write_bytes("a", b"content" * 1000),
    "HEAD": lambda store, out: store.stat("a"),
    "LIST": lambda store, out: list(store.list("a")),
}


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("kind", ["429", "500", "502", "503", "504", "close", "drop"])
def test_transient_failures_are_retried(cloud: CloudLocation, out: Path, kind: str, method: str) -> None:
    cloud.store.write_bytes("a", b"content" * 1000)
    expected = REQUESTS[method](cloud.store, out)
    before = cloud.server.count(method, cloud.key("a"))
    cloud.server.faults.add(Fault(kind, cloud.key("a"), times=2, method=method))
    answer = REQUESTS[method](cloud.store, out)
    assert answer == expected
    # Three attempts; more where the client stops listening half-way and asks for the rest.
    assert cloud.server.count(method, cloud.key("a")) - before == 3
    assert cloud.store.read_bytes("a") == b"content" * 1000


@pytest.mark.parametrize("method", REQUESTS)
def test_attempts_are_bounded(cloud: CloudLocation, out: Path, method: str) -> None:
    cloud.store.write_bytes("a", b"content" * 1000)
    before = cloud.server.count(method, cloud.key("a"))
    cloud.server.faults.add(Fault("503", cloud.key("a"), times=99, method=method))
    with pytest.raises(StorageError, match="every attempt failed"):
        REQUESTS[method](cloud.store, out)
    assert cloud.server.count(method, cloud.key("a")) - before == FAST_RETRIES.attempts
    cloud.server.faults.clear()
    assert file_names(out) == []
    assert cloud.store.read_bytes("a") == b"content" * 1000


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize("kind", ["401", "403"])
def test_denied_access_is_reported_without_retries(cloud: CloudLocation, out: Path, kind: str, method: str) -> None:
    cloud.store.write_bytes("a", b"content" * 1000)
    before = cloud.server.count(method, cloud.key("a"))
    cloud.server.faults.add(Fault(kind, cloud.key("a"), times=99, method=method))
    with pytest.raises(AccessDeniedError, match=r"access denied .*; .*check what the (credentials allow|account may)"):
        REQUESTS[method](cloud.store, out)
    assert cloud.server.count(method, cloud.key("a")) - before == 1
    assert file_names(out) == []


def test_corrupted_download_is_retried_then_refused(cloud: CloudLocation, out: Path) -> None:
    cloud.store.write_bytes("a", b"content" * 1000)
    for kind in ("flip", "short"):
        cloud.server.faults.add(Fault(kind, cloud.key("a"), times=1, method="GET"))
        cloud.store.fetch("a", out / "a")
        assert (out / "a").read_bytes() == b"content" * 1000
        assert not cloud.server.faults.pending()
        cloud.server.faults.add(Fault(kind, cloud.key("a"), times=99, method="GET"))
        with pytest.raises(StorageError, match="cannot read"):
            cloud.store.fetch("a", out / "b")
        cloud.server.faults.clear()
    assert file_names(out) == ["a"]


def listed(store: Store) -> StoredObject:
    (found,) = store.list()
    return found


def test_object_changed_between_listing_and_fetch_is_refused(s3: CloudLocation, out: Path) -> None:
    s3.store.write_bytes("a", b"content")
    version = listed(s3.store).version
    s3.server.faults.add(Fault("change", s3.key("a"), method="GET"))
    with pytest.raises(ObjectChangedError):
        s3.store.fetch("a", out / "a", version)
    assert file_names(out) == []
    assert s3.store.read_bytes("a") == b"other content"


def test_object_changed_during_a_fetch_is_refused(s3: CloudLocation, out: Path) -> None:
    s3.store.write_bytes("a", b"content" * 1000)
    s3.server.faults.add(Fault("drop", s3.key("a"), method="GET"))
    s3.server.faults.add(Fault("change", s3.key("a"), method="GET"))
    with pytest.raises(ObjectChangedError):
        s3.store.fetch("a", out / "a")
    assert file_names(out) == []


def test_object_deleted_between_listing_and_fetch_is_reported_missing(s3: CloudLocation, out: Path) -> None:
    s3.store.write_bytes("a", b"content")
    version = listed(s3.store).version
    s3.server.faults.add(Fault("vanish", s3.key("a"), method="GET"))
    with pytest.raises(MissingObjectError):
        s3.store.fetch("a", out / "a", version)
    assert s3.server.count("GET") == 1
    assert file_names(out) == []
