"""A folder as a store: whole files, nothing outside of it, no partial files in listings."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maag.errors import AccessDeniedError, DataError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage.keys import safe_key
from maag.storage.local import LocalStore
from maag.storage.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def keys(store: LocalStore, prefix: str = "") -> list[str]:
    return [stored.key for stored in store.list(prefix)]


def test_paths_and_file_uris_open_local_stores(tmp_path: Path) -> None:
    for place in (str(tmp_path / "a b"), f"file://{tmp_path}/a%20b", f"file://{tmp_path}/a%20b/"):
        assert open_store(place).uri == str(tmp_path / "a b")
        open_store(place).write_bytes("c/d", b"content")
    assert (tmp_path / "a b" / "c" / "d").read_bytes() == b"content"
    assert open_store(place).child("c/d") == str(tmp_path / "a b" / "c" / "d")


def test_missing_folder_is_an_empty_store_until_the_first_write(store: LocalStore) -> None:
    assert keys(store) == []
    assert keys(store, "a/b") == []
    assert store.stat("a") is None
    store.write_bytes("a/b", b"1")
    assert keys(store) == ["a/b"]


def test_version_consists_of_modification_time_and_size(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("a", b"123")
    stored = store.stat("a")
    assert stored is not None
    status = (tmp_path / "store" / "a").stat()
    assert stored.version == f"{status.st_mtime_ns}-3"
    os.utime(tmp_path / "store" / "a", ns=(0, status.st_mtime_ns + 1))
    with pytest.raises(ObjectChangedError, match="has changed since it was listed"):
        store.fetch("a", tmp_path / "copy", stored.version)
    assert not (tmp_path / "copy").exists()


def test_put_and_fetch_copy_whole_files(store: LocalStore, tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "source").write_bytes(content)
    store.put(tmp_path / "source", "a/b")
    stored = store.fetch("a/b", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == content
    assert stored == store.stat("a/b") == next(store.list())
    assert store.md5_of("a/b") == hashlib.md5(content).hexdigest()
    assert store.md5_of("none") is None
    assert {path.name for path in (tmp_path / "store" / "a").iterdir()} == {"b"}


def test_unfinished_files_are_not_listed(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("a.nii.gz", b"1")
    (tmp_path / "store" / ".a.nii.gz.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / "store" / ".hidden").write_bytes(b"whole")
    assert keys(store) == [".hidden", "a.nii.gz"]


@pytest.mark.parametrize("link", ["file", "folder"])
def test_links_out_of_the_store_are_refused(store: LocalStore, tmp_path: Path, link: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "other" / ("file" if link == "file" else ""))
    key = "link" if link == "file" else "link/file"
    assert keys(store) == [key]
    for ask in (store.stat, store.read_bytes, store.md5_of, lambda key: store.write_bytes(key, b"")):
        with pytest.raises(DataError, match="a link leads out of"):
            ask(key)
    assert (tmp_path / "other" / "file").read_text() == "secret"


def test_links_within_the_store_are_followed_without_loops(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("a/file", b"1")
    (tmp_path / "store" / "b").symlink_to("a")
    (tmp_path / "store" / "a" / "up").symlink_to("..")
    (tmp_path / "store" / "broken").symlink_to("none")
    assert keys(store) == ["a/file", "b/file"]
    assert store.read_bytes("b/file") == b"1"


def test_link_to_a_parent_folder_does_not_loop_for_any_root(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_bytes("a/file", b"1")
    (tmp_path / "store" / "a" / "again").symlink_to("../a")
    (tmp_path / "link").symlink_to("store")
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "store", Path("store"), Path("link")):
        assert keys(LocalStore(root)) == ["a/file"]


def test_a_root_may_be_a_link(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("a", b"1")
    (tmp_path / "link").symlink_to("store")
    linked = LocalStore(tmp_path / "link")
    assert linked.read_bytes("a") == b"1"
    linked.write_bytes("b", b"2")
    assert keys(store) == ["a", "b"]


def test_conflicts_of_folders_and_files_are_refused(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("a/b", b"1")
    assert store.stat("a") is None
    with pytest.raises(StorageError, match="this is a folder"):
        store.read_bytes("a")
    with pytest.raises(StorageError, match="cannot write"):
        store.write_bytes("a", b"2")
    with pytest.raises(StorageError, match="a file of this name is in the way"):
        store.write_bytes("a/b/c", b"2")
    with pytest.raises(StorageError, match="is a file, not a folder"):
        store.read_bytes("a/b/c")
    assert store.stat("a/b/c") is None
    assert keys(store) == ["a/b"]


def test_denied_access_is_not_reported_as_missing(store: LocalStore, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    store.write_bytes("a/b", b"1")
    (tmp_path / "store" / "a").chmod(0)
    try:
        for ask in (store.read_bytes, store.stat, store.md5_of):
            with pytest.raises(AccessDeniedError):
                ask("a/b")
    finally:
        (tmp_path / "store" / "a").chmod(0o700)


def test_file_that_grows_during_a_fetch_is_refused(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("a", b"x" * 5_000_000)
    stop, grown = threading.Event(), threading.Event()

    def grow() -> None:
        with (tmp_path / "store" / "a").open("ab") as file:
            while not stop.is_set():
                file.write(b"y" * 1000)
                file.flush()
                grown.set()

    writer = threading.Thread(target=grow)
    writer.start()
    grown.wait(10)
    try:
        with pytest.raises(ObjectChangedError, match="changed while it was read"):
            fetch_repeatedly(store, "a", tmp_path / "copy")
    finally:
        stop.set()
        writer.join()
    assert not (tmp_path / "copy").exists()


def fetch_repeatedly(store: LocalStore, key: str, to: Path) -> None:
    """On a busy machine, the writer may not run during one copy, or a few."""
    for _ in range(100):
        copied = store.fetch(key, to)
        assert to.stat().st_size == copied.size
        to.unlink()


def test_concurrent_writes_of_a_key_leave_one_whole_file(store: LocalStore) -> None:
    contents = [bytes([i]) * 100_000 for i in range(4)]
    writers = [threading.Thread(target=store.write_bytes, args=("a", content)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.read_bytes("a") in contents
    assert keys(store) == ["a"]


def test_store_can_be_pickled(store: LocalStore) -> None:
    store.write_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("a") == b"1"


def test_fetch_of_a_missing_file_is_refused(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(MissingObjectError) as caught:
        store.fetch("a/b", tmp_path / "copy")
    assert str(caught.value) == f"cannot read {tmp_path / 'store' / 'a' / 'b'}: there is no such file"


NAMES = st.text("aZ0 .-_%+#?&=~'()[]*$@!,;äß心😀", min_size=1, max_size=30)
SAFE = st.lists(NAMES, min_size=1, max_size=3)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SAFE.map("/".join), st.sets(st.text("ab-/.0", min_size=1, max_size=6), max_size=6))
def test_every_safe_key_can_be_written_and_listed(tmp_path: Path, key: str, others: set[str]) -> None:
    store = LocalStore(tmp_path / os.urandom(8).hex())
    written: set[str] = set()
    for name in (key, *others):
        try:
            store.write_bytes(safe_key(name), name.encode())
        except (DataError, StorageError):  # not safe, or a folder's name already
            continue
        written.add(name)
    assert keys(store) == sorted(written)
    for name in written:
        assert store.read_bytes(name) == name.encode()
        assert keys(store, name) == sorted(other for other in written if other.startswith(name))
