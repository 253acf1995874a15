"""All stores behave alike: a folder, and buckets of S3, Google and Azure behind servers on loopback."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bucket_stores import file_names

from maag.errors import DataError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage.store import Store

pytestmark = pytest.mark.integration
ODD = [
    "a b.bin",
    "ä/ö ü.bin",
    "100%.bin",
    "a%20b",
    "a+b",
    "#1",
    "what?x=1&y=2",
    "a=b,c;d",
    "~x'(1)*!$@[].nii.gz",
    "…/心臟",
]


def test_put_file_can_be_fetched_and_read(store: Store, out: Path) -> None:
    source, content = out / "source", bytes(range(256)) * 999
    source.write_bytes(content)
    store.put(source, "a/b.bin")
    stored = store.stat("a/b.bin")
    assert stored is not None
    assert (stored.key, stored.size) == ("a/b.bin", len(content))
    assert list(store.list()) == [stored]
    assert store.md5_of("a/b.bin") == hashlib.md5(content).hexdigest()
    assert store.read_bytes("a/b.bin") == content
    assert store.read_start("a/b.bin", 1000) == content[:1000]
    assert store.fetch("a/b.bin", out / "new" / "copy", stored.version) == stored
    assert (out / "new" / "copy").read_bytes() == content
    assert file_names(out / "new") == ["copy"]


def test_changed_content_has_another_version(store: Store, out: Path) -> None:
    store.write_bytes("a", b"one")
    before = store.stat("a")
    assert before is not None
    store.write_bytes("a", b"two.")
    after = store.stat("a")
    assert after is not None
    assert after.version != before.version
    with pytest.raises(ObjectChangedError, match="has changed since it was listed"):
        store.fetch("a", out / "a", before.version)
    assert file_names(out) == []
    store.fetch("a", out / "a", after.version)
    assert (out / "a").read_bytes() == b"two."


def test_empty_object_has_a_digest(store: Store, out: Path) -> None:
    store.write_bytes("empty", b"")
    assert store.read_bytes("empty") == b""
    assert store.fetch("empty", out / "empty").size == 0
    assert store.md5_of("empty") == hashlib.md5(b"").hexdigest()


def test_missing_object_is_reported(store: Store, out: Path) -> None:
    store.write_bytes("a", b"a")
    assert store.stat("b") is None
    assert store.md5_of("b") is None
    assert list(store.list("b")) == []
    with pytest.raises(MissingObjectError, match=r"there is no such (object|file)"):
        store.fetch("b", out / "b")
    with pytest.raises(MissingObjectError):
        store.read_bytes("b")
    with pytest.raises(MissingObjectError):
        store.read_start("b", 1)
    assert file_names(out) == []


def test_a_failed_fetch_keeps_the_old_file(store: Store, out: Path) -> None:
    (out / "a").write_text("old")
    with pytest.raises(MissingObjectError):
        store.fetch("a", out / "a")
    assert (out / "a").read_text() == "old"


def test_put_of_a_missing_source_is_refused(store: Store, out: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*none"):
        store.put(out / "none", "a")
    assert store.stat("a") is None


def test_objects_are_listed_by_prefix_in_key_order(store: Store) -> None:
    keys = ["a", "a-1", "a/1", "a/10", "a/2", "a.txt", "b/c/d", "b/cd", "ä", "Z"]
    for key in keys:
        store.write_bytes(key if key != "a" else "a0", key.encode())
    keys = sorted({*keys, "a0"} - {"a"})
    assert [stored.key for stored in store.list()] == keys
    for prefix in ("a", "a/", "a/1", "b/c", "b/c/", "none", "none/a", "b/c/d"):
        assert [stored.key for stored in store.list(prefix)] == [key for key in keys if key.startswith(prefix)], prefix
    assert {stored.size for stored in store.list("b/c/d")} == {5}


@pytest.mark.parametrize("key", ODD)
def test_odd_keys_are_kept_unchanged(store: Store, out: Path, key: str) -> None:
    store.write_bytes(key, key.encode())
    assert [stored.key for stored in store.list()] == [key]
    stored = store.stat(key)
    assert stored is not None
    store.fetch(key, out / "copy", stored.version)
    assert (out / "copy").read_text() == key
    assert store.child(key) == f"{store.uri}/{key}"


@pytest.mark.parametrize(
    "key", ["", "/a", "../a", "a/../../b", "a/./b", "a//b", "a/", "a\\b", "C:a", "a\0b", "a" * 256]
)
def test_unsafe_keys_are_not_written(store: Store, out: Path, key: str) -> None:
    with pytest.raises(DataError, match=r"the key .* is refused"):
        store.write_bytes(key, b"a")
    (out / "a").write_text("a")
    with pytest.raises(DataError, match=r"the key .* is refused"):
        store.put(out / "a", key)
    assert list(store.list()) == []


@pytest.mark.parametrize("key", ["", "/a", "../a", "a/../../b", "a/./b", "a\0b"])
def test_keys_outside_the_store_are_not_read(store: Store, out: Path, key: str) -> None:
    for read in (store.stat, store.read_bytes, store.md5_of, lambda key: store.fetch(key, out / "a")):
        with pytest.raises(DataError, match=r"the key .* is refused"):
            read(key)
    assert file_names(out) == []


def test_many_threads_can_share_a_store(store: Store, out: Path) -> None:
    def write_and_fetch(i: int) -> bytes:
        store.write_bytes(f"n/{i}", bytes([i]) * 1000)
        store.fetch(f"n/{i}", out / str(i))
        return (out / str(i)).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write_and_fetch, range(24))) == [bytes([i]) * 1000 for i in range(24)]
    assert len(list(store.list("n/"))) == 24


def test_concurrent_writes_of_a_key_leave_one_whole_object(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: store.write_bytes("a", bytes([i]) * 50_000), range(8)))
    content = store.read_bytes("a")
    assert content in [bytes([i]) * 50_000 for i in range(8)]
    assert store.md5_of("a") == hashlib.md5(content).hexdigest()


def test_used_store_can_be_pickled(store: Store) -> None:
    store.write_bytes("a", b"content")
    again: Store = pickle.loads(pickle.dumps(store))
    assert again.uri == store.uri
    assert again.read_bytes("a") == b"content"
