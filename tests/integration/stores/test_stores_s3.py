"""What only S3 has: pages, multipart uploads, credentials, and incomplete bodies."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_stores import FAST_RETRIES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, Fault, S3Server, client_of, s3_server

from maag.errors import AccessDeniedError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage.opening import open_store
from maag.storage.s3 import S3Store
from maag.storage.store import Store

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def _server() -> Iterator[tuple[S3Server, dict[str, str]]]:
    with s3_server() as started:
        yield started


@pytest.fixture
def server(_server: tuple[S3Server, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> S3Server:
    server, environment = _server
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server.faults.clear()
    server.counts.clear()
    return server


@pytest.fixture
def store(server: S3Server, request: pytest.FixtureRequest) -> Store:
    return open_store(f"s3://{BUCKET}/{request.node.name}", FAST_RETRIES)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_long_listings_are_fetched_page_by_page(server: S3Server, store: Store) -> None:
    prefix = store.uri.removeprefix(f"s3://{BUCKET}/")
    for i in range(1001):
        server.put_object(f"{prefix}/{i:04}", b"x")
    server.put_object(f"{prefix}/0500/", b"")  # stands for a folder
    found = store.list()
    assert next(found).key == "0000"
    assert server.count("LIST") == 1
    server.faults.add(Fault("503", method="LIST"))
    assert [stored.key for stored in found] == [f"{i:04}" for i in range(1, 1001)]
    assert server.count("LIST") == 3


def test_bucket_is_checked_only_once_for_several_missing_objects(server: S3Server, store: Store) -> None:
    assert [store.stat(name) for name in "abc"] == [None] * 3
    assert (server.count("HEAD"), server.count("LIST")) == (3, 1)


def test_prefix_ends_at_a_slash(server: S3Server) -> None:
    server.put_object("volumes/a", b"1")
    server.put_object("volumes2/b", b"1")
    assert [stored.key for stored in open_store(f"s3://{BUCKET}/volumes", FAST_RETRIES).list()] == ["a"]
    assert {"volumes/a", "volumes2/b"} <= {stored.key for stored in open_store(f"s3://{BUCKET}", FAST_RETRIES).list()}


def test_md5_of_objects_from_other_programs_is_their_etag(server: S3Server, store: Store) -> None:
    server.put_object("others/a", b"abc")
    others = open_store(f"s3://{BUCKET}/others", FAST_RETRIES)
    assert others.md5_of("a") == "900150983cd24fb0d6963f7d28e17f72"
    assert others.read_bytes("a") == b"abc"


def test_stalled_download_resumes_where_it_stopped(server: S3Server, store: Store, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    store.write_bytes("a", content)
    server.faults.add(Fault("stall", "*/a", method="GET", wait_s=0.8))
    server.faults.add(Fault("slow", "*/a", method="GET", wait_s=0.02))
    impatient = open_store(store.uri, dataclasses.replace(FAST_RETRIES, read_timeout_s=0.4))
    impatient.fetch("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    assert server.count("GET") == 2


def test_repeatedly_interrupted_download_is_completed_in_parts(server: S3Server, store: Store, tmp_path: Path) -> None:
    content = os.urandom(1_000_000)
    store.write_bytes("a", content)
    server.faults.add(Fault("drop", "*/a", times=FAST_RETRIES.attempts - 1, method="GET"))
    store.fetch("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    server.faults.add(Fault("drop", "*/a", times=FAST_RETRIES.attempts, method="GET"))
    with pytest.raises(StorageError, match="every attempt failed"):
        store.fetch("a", tmp_path / "b")
    assert names(tmp_path) == ["a"]


def test_multipart_upload_is_complete_or_leaves_nothing(server: S3Server, tmp_path: Path) -> None:
    class Parts(S3Store):
        part_bytes = 5 << 20

    store = Parts(BUCKET, "parts", FAST_RETRIES)
    content = os.urandom(11 << 20)
    (tmp_path / "source").write_bytes(content)
    server.faults.add(Fault("503", "parts/a", times=2, method="PUT"))
    store.put(tmp_path / "source", "a")
    assert server.count("PUT", "parts/a") == 3 + 2
    store.fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert store.md5_of("a") is not None

    server.faults.add(Fault("503", "parts/b", times=99, method="PUT"))
    with pytest.raises(StorageError, match="every attempt failed"):
        store.put(tmp_path / "source", "b")
    server.faults.clear()
    assert store.stat("b") is None
    unfinished = client_of(dict(os.environ)).list_multipart_uploads(Bucket=BUCKET)
    assert "Uploads" not in unfinished


def test_upload_without_response_is_retried(server: S3Server, store: Store) -> None:
    server.faults.add(Fault("drop", "*/a", method="PUT"))
    store.write_bytes("a", b"content")
    assert store.read_bytes("a") == b"content"
    assert server.count("PUT") == 2


def test_missing_credentials_are_refused_before_any_request(
    server: S3Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(AccessDeniedError, match="AWS_NO_SIGN_REQUEST=YES for a public bucket"):
        list(store.list())
    assert not server.counts
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    assert list(open_store(store.uri, FAST_RETRIES).list()) == []
    assert server.count("LIST") == 1


def test_expired_token_is_recognised_in_a_response_without_body(server: S3Server, store: Store) -> None:
    store.write_bytes("a", b"content")
    server.faults.add(Fault("400", times=99))
    with pytest.raises(AccessDeniedError, match="ExpiredToken"):
        store.stat("a")


def test_forbidden_object_is_not_reported_as_missing(server: S3Server, store: Store) -> None:
    server.faults.add(Fault("403", method="HEAD"))
    with pytest.raises(AccessDeniedError, match="also answers this for a missing object"):
        store.stat("none")


def test_unreachable_endpoint_fails_after_its_last_attempt(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="every attempt failed"):
        open_store(f"s3://{BUCKET}/a", FAST_RETRIES).stat("b")


def test_invalid_bucket_name_is_reported(server: S3Server) -> None:
    with pytest.raises(StorageError, match=r"cannot read s3://Not Valid/a: .*check the address"):
        open_store("s3://Not Valid", FAST_RETRIES).read_bytes("a")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("aZ0 .-_%+#?&=~'()[]*$@!,;:äß心😀", min_size=1, max_size=12), min_size=1, max_size=3))
def test_every_key_can_be_written_and_listed(server: S3Server, store: Store, parts: list[str]) -> None:
    key = "/".join(parts)
    if {".", ".."} & set(parts) or key[1:2] == ":":
        return
    store.write_bytes(key, key.encode())
    assert store.read_bytes(key) == key.encode()
    assert [stored.key for stored in store.list(key) if stored.key == key] == [key]
    assert store.stat(key) is not None


def test_read_bytes_raises_typed_errors(server: S3Server, store: Store) -> None:
    store.write_bytes("a", b"content")
    for kind, expected in [("404", MissingObjectError), ("412", ObjectChangedError), ("403", AccessDeniedError)]:
        server.faults.add(Fault(kind, "*/a", method="GET"))
        with pytest.raises(expected):
            store.read_bytes("a")
