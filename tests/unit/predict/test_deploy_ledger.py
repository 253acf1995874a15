"""The ledger of predictions, read and written by several jobs."""

from __future__ import annotations

import fcntl
import os
import resource
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.predicting.ledger import (
    LEDGER,
    Entry,
    FileLedger,
    History,
    StoreLedger,
    gather,
    now,
    read_entries,
    read_finished,
)
from maag.errors import ObjectChangedError, StorageError
from maag.storage.opening import open_store
from maag.storage.store import Store, StoredObject

ENTRIES = 200


def entry(place: int) -> Entry:
    return Entry(
        source=f"{place}.nii.gz", target=f"{place}.nii.gz", source_version="sha256:0", model="m",
        target_md5=f"{place:032x}", finished_at=now(), seconds=0.1, error=None,
    )  # fmt: skip


def test_the_ledger_is_readable_while_another_job_appends(tmp_path: Path) -> None:
    ledger, out = FileLedger(tmp_path / LEDGER), open_store(str(tmp_path))
    ledger.append(entry(0))
    writer = threading.Thread(target=lambda: [ledger.append(entry(place)) for place in range(1, ENTRIES)])
    writer.start()
    seen = [len(read_finished(out))]
    while writer.is_alive():
        seen.append(len(read_finished(out)))
    writer.join()
    assert seen == sorted(seen)
    assert len(read_finished(out)) == ENTRIES


class ChangingStore:
    """A store whose objects change during the first few reads."""

    def __init__(self, store: Store, times: int) -> None:
        self._store, self._left = store, times

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def read_bytes(self, key: str) -> bytes:
        self._left -= 1
        if self._left >= 0:
            raise ObjectChangedError(f"{key} changed while it was read")
        return self._store.read_bytes(key)


def test_a_read_is_retried_when_the_ledger_changes_meanwhile(tmp_path: Path) -> None:
    FileLedger(tmp_path / LEDGER).append(entry(7))
    assert set(read_finished(ChangingStore(open_store(str(tmp_path)), 3))) == {"7.nii.gz"}  # type: ignore[arg-type]


def test_a_ledger_copied_between_folder_and_bucket_can_be_continued(tmp_path: Path) -> None:
    """A folder then holds parts, or a bucket a file, and entries of the other kind are added."""
    out = open_store(str(tmp_path))
    StoreLedger(out).append(entry(0))
    gather(out)
    assert len(read_entries(out)) == 1
    FileLedger(tmp_path / LEDGER).append(replace(entry(0), model="other"))
    FileLedger(tmp_path / LEDGER).append(entry(1))
    assert {name: found.model for name, found in read_finished(out).items()} == {
        "0.nii.gz": "other",
        "1.nii.gz": "m",
    }
    StoreLedger(out).append(entry(2))
    gather(out)
    assert [found.target for found in read_entries(out)] == [f"{place}.nii.gz" for place in (0, 0, 1, 2)]
    assert len((tmp_path / LEDGER).read_text().splitlines()) == 4


class MemoryStore:
    """An in-memory store with only what ledgers need."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def write_bytes(self, key: str, content: bytes) -> None:
        self.objects[key] = content

    def read_bytes(self, key: str) -> bytes:
        return self.objects[key]

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return (StoredObject(key, None, "") for key in sorted(self.objects) if key.startswith(prefix))

    def stat(self, key: str) -> StoredObject | None:
        return StoredObject(key, None, "") if key in self.objects else None

    def child(self, key: str) -> str:
        return key


def test_a_long_ledger_is_split_into_parts_without_losing_entries() -> None:
    store = MemoryStore()
    ledger = StoreLedger(store)  # type: ignore[arg-type]
    for place in range(600):
        ledger.append(entry(place))
    assert [len(content.splitlines()) for content in store.objects.values()] == [256, 256, 88]
    found = read_entries(store)  # type: ignore[arg-type]
    assert [each.target for each in found] == [f"{place}.nii.gz" for place in range(600)]


class SlowMemoryStore(MemoryStore):
    """Blocks the write of so many lines until another thread tries to append."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.ledger = StoreLedger(self)  # type: ignore[arg-type]
        self.second = threading.Thread(target=lambda: self.ledger.append(entry(lines)))
        self._lines = lines

    def write_bytes(self, key: str, content: bytes) -> None:
        if content.count(b"\n") == self._lines and not self.second.ident:
            self.second.start()
            self.second.join(timeout=0.1)  # it waits for this write to end
            assert self.second.is_alive()
        super().write_bytes(key, content)


@pytest.mark.parametrize("lines", [1, 256])  # 256 lines fill a part
def test_an_entry_appended_during_a_write_is_written_separately(lines: int) -> None:
    store = SlowMemoryStore(lines)
    for place in range(lines):
        store.ledger.append(entry(place))
    store.second.join()
    assert set(read_finished(store)) == {f"{place}.nii.gz" for place in range(lines + 1)}  # type: ignore[arg-type]


def test_entries_of_several_jobs_are_read_in_chronological_order(tmp_path: Path) -> None:
    out = open_store(str(tmp_path))
    attempts = [("2.nii.gz", "m"), ("1.nii.gz", "old"), ("0.nii.gz", "m"), ("1.nii.gz", "new")]
    for second, (target, model) in reversed([*enumerate(attempts)]):
        finished_at = f"2026-11-01T00:00:0{second}.000000+00:00"
        StoreLedger(out).append(replace(entry(0), target=target, model=model, finished_at=finished_at))
    assert [(found.target, found.model) for found in read_entries(out)] == attempts
    assert read_finished(out)["1.nii.gz"].model == "new"


def test_an_append_waits_for_the_lock_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    FileLedger(path).append(entry(0))
    writer = threading.Thread(target=lambda: FileLedger(path).append(entry(1)))
    with path.open("ab") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        others.write(b'{"half of a li')
        others.flush()
        writer.start()
        writer.join(timeout=0.1)
        assert writer.is_alive()
        others.write(b'ne": 1}\n')
    writer.join()
    assert len(path.read_bytes().splitlines()) == 3
    assert set(read_finished(open_store(str(tmp_path)))) == {"0.nii.gz", "1.nii.gz"}


def test_an_entry_is_synced_to_disk_when_it_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: list[tuple[int, int]] = []

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synchronised.append((status.st_ino, status.st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    FileLedger(tmp_path / LEDGER).append(entry(0))
    status = (tmp_path / LEDGER).stat()
    assert synchronised == [(status.st_ino, status.st_size)]


def test_a_volume_that_failed_last_is_not_finished_despite_earlier_success(tmp_path: Path) -> None:
    ledger, out = FileLedger(tmp_path / LEDGER), open_store(str(tmp_path))
    for place in (0, 1):
        ledger.append(entry(place))
    ledger.append(replace(entry(0), error="0.nii.gz: truncated", target_md5=None))
    assert set(read_finished(out)) == {"1.nii.gz"}


def test_a_line_that_is_not_utf8_is_ignored(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_bytes(b'{"source": "caf\xc3\n')
    FileLedger(tmp_path / LEDGER).append(entry(0))
    assert set(read_finished(open_store(str(tmp_path)))) == {"0.nii.gz"}


@pytest.mark.parametrize("line", ["[]", "3", "null", '{"format_version": 3, "source": "a"}', '{"format_version": 3'])
def test_lines_without_a_complete_entry_are_ignored(tmp_path: Path, line: str) -> None:
    (tmp_path / LEDGER).write_text(f"{line}\n")
    FileLedger(tmp_path / LEDGER).append(entry(0))
    assert set(read_finished(open_store(str(tmp_path)))) == {"0.nii.gz"}


def test_an_entry_that_the_disk_has_no_room_for_is_an_error_and_ruins_no_later_one(tmp_path: Path) -> None:
    """The system then writes the beginning of a line, and reports how much, not an error."""
    ledger = FileLedger(tmp_path / LEDGER)
    ledger.append(entry(0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / LEDGER).stat().st_size + 10, before[1]))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            ledger.append(entry(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    ledger.append(entry(2))
    assert set(read_finished(open_store(str(tmp_path)))) == {"0.nii.gz", "2.nii.gz"}


def test_unknown_side_files_of_an_earlier_entry_remain_possible() -> None:
    first, second = entry(0), replace(entry(0), side_files={"0.json": "ab"})
    history = History().then(first).then(second)
    assert history.may_have_written("0.json")
    assert history.may_have_written("0_probabilities.nii.gz")  # perhaps by the first attempt, whose entry names none
    named = History().then(second)
    assert named.may_have_written("0.json")
    assert not named.may_have_written("0_probabilities.nii.gz")


def test_failures_add_no_labels_to_a_history() -> None:
    failed = replace(entry(0), error="0.nii.gz: truncated", target_md5=None)
    assert History().then(failed) == History(failed, frozenset(), frozenset())
    assert History().then(entry(0)).then(failed).target_md5s == {entry(0).target_md5}
